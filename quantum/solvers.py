"""Quantum linear solvers, emulated: the state that each prepares for K~ |w> = |y>, and what it
costs.

A solver sees K~ through a block encoding: a unitary with H = K~/alpha in its corner. Every solver
here but the kernel reflection prepares f(H)|y>/|f(H) y| for a polynomial f, so that one
eigendecomposition of K~ gives its exact output, with the error of its truncation and its success
probability. Of a large sparse K~ only that part is decomposed which polynomials of K~ can reach
from |y> (`reached_from`). kappa is always that of H: 1 / smallest |eigenvalue|.

Sources: [CKS] Childs, Kothari, Somma, arXiv:1511.02306. [GSLW] Gilyen, Su, Low, Wiebe,
arXiv:1806.01838. [Dalzell] arXiv:2406.12086. [Costa] Costa, An, Babbush, Berry, arXiv:2312.07690.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse
import scipy.sparse.linalg
import scipy.stats
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix: TypeAlias = "NDArray[np.float64] | scipy.sparse.csr_array"

SOLVERS = (
    "CKS series",
    "QSVT",
    "kernel reflection",
    "kernel reflection, norm unknown",
    "adiabatic",
    "series in E",
)
# The others are counted by published formulas.
EMULATED = (
    "CKS series",
    "QSVT",
    "kernel reflection",
    "series in E",
)
ENCODINGS = ("sparse oracle", "I + E")
QUERIES_PER_USE = (
    4  # of the oracle by one use of a block encoding: two positions, two entries; [GSLW], Lemma 48
)
HEADROOM = 1e-3  # phases of the QSVT are found for polynomials a little below 1
LEAST_KAPPA = 1 + 1e-6  # kappa of the identity: the formulas divide by 1 - 1/kappa^2
LARGEST_DEGREE = 10**5  # polynomials of a higher degree are counted, but not applied
RESIDUAL = 1e-12  # of K~^-1|y> in what is decomposed of a sparse K~; then as much again is added
MOST_VECTORS = 2000  # that are kept for that


@dataclass(frozen=True)
class Encoding:
    """A block encoding of K~ = V diag(eigenvalues) V': H = K~/norm.

    eigenvalues: of H [m]; labels: V'y/|y| [m]; vectors: V [n, m]; matrix: H, sparse [n, n]. m = n,
    or of a sparse K~ as many as |y> needs. kappa: of H. For "I + E", H = (I + E)/(1 + beta) with d
    the mean diagonal of K~, E = K~/d - I and beta = s_E max|E|, `perturbation` holds E's
    eigenvalues [m], `radius` its norm |E|, and `beta` its norm in E's own block encoding.
    """

    name: str
    eigenvalues: Vector
    labels: Vector
    vectors: NDArray[np.float64] = field(repr=False)
    matrix: scipy.sparse.csr_array = field(repr=False)
    kappa: float
    perturbation: Vector | None = None
    beta: float = 0.0
    radius: float = 0.0

    @property
    def no_state(self) -> Vector:
        """What stands for a state that is not emulated: NaN. [n]"""
        return np.full(len(self.vectors), np.nan)


@dataclass(frozen=True)
class Prepared:
    """One run of a solver. state: |w> [n], NaN where it is only counted; uses: of the block
    encoding or its inverse; label_queries: of the phase oracle of y; success_probability: of the
    run; coherent: a unitary and a flag, with an inverse. It is none where the count is of an
    expected number of measured repetitions, or was made for a measured filter; the success
    probability is then taken as 1, and the count is a lower bound.
    """

    state: Vector
    uses: float
    success_probability: float
    label_queries: float = 1.0
    coherent: bool = True

    @property
    def oracle_queries(self) -> float:
        """Queries to the sparse oracle of one run."""
        return QUERIES_PER_USE * self.uses


def relative_error(epsilon: float) -> float:
    """Relative error |delta|/|x| of a vector x + delta that leaves its direction within `epsilon`
    of x/|x|.

    The angle is at most arcsin of the relative error, and the chord of an angle a is 2 sin(a/2).
    """
    return math.sin(2 * math.asin(min(epsilon, math.sqrt(2)) / 2))


def block_encodings(matrix: Matrix, y: Vector) -> dict[str, Encoding]:
    """Both block encodings of K~ = matrix, symmetric [n, n], for labels y [n]; {} where K~ is
    singular to rounding.

    "sparse oracle": the sparse oracle's own, [GSLW] Lemma 48, of norm s max|K~|. "I + E": the
    linear combination of the identity, which needs no query, and of E by the same oracle, of norm d
    (1 + beta); d > 0 is assumed known.
    """
    is_dense = isinstance(matrix, np.ndarray)
    spectrum = whole_spectrum(matrix, y) if is_dense else reached_from(matrix, y)
    if spectrum is None or spectrum.ends.is_singular(len(y)):
        return {}
    encodings = [block_encoding("sparse oracle", matrix, spectrum, norm_of_oracle(matrix))]
    d = float(np.mean(matrix.diagonal()))
    if d > 0:
        beta = norm_of_oracle(perturbation(matrix, d))
        of_identity = block_encoding("I + E", matrix, spectrum, d * (1 + beta))
        values = spectrum.eigenvalues / d - 1
        radius = max(abs(spectrum.ends.lowest / d - 1), abs(spectrum.ends.highest / d - 1))
        encodings.append(replace(of_identity, perturbation=values, beta=beta, radius=radius))
    return {each.name: each for each in encodings}


def block_encoding(name: str, matrix: Matrix, spectrum: "Spectrum", norm: float) -> Encoding:
    """The block encoding of K~ = matrix [n, n] with H = K~/norm."""
    return Encoding(
        name,
        spectrum.eigenvalues / norm,
        spectrum.labels,
        spectrum.vectors,
        scipy.sparse.csr_array(matrix) / norm,
        max(norm / spectrum.ends.smallest, LEAST_KAPPA),
    )


def perturbation(matrix: Matrix, d: float) -> Matrix:
    """E = K~/d - I of K~ = matrix [n, n], without a diagonal that is constant up to rounding."""
    n = matrix.shape[0]
    if isinstance(matrix, np.ndarray):
        rest = matrix / d - np.eye(n)
        rest[np.abs(rest) < n * np.finfo(float).eps] = 0
        return rest
    rest = scipy.sparse.csr_array(matrix / d - scipy.sparse.eye_array(n))
    rest.data[np.abs(rest.data) < n * np.finfo(float).eps] = 0
    rest.eliminate_zeros()
    return rest


def norm_of_oracle(matrix: Matrix) -> float:
    """The norm s max|M| of the sparse oracle's block encoding of a matrix M [n, n]."""
    return row_entries(matrix) * float(abs(matrix).max())


def row_entries(matrix: Matrix) -> int:
    """Largest number of non-zero entries in a row, s."""
    occupied = abs(matrix) > 0
    return int(occupied.sum(axis=1).max())


# --------------------------------------------------------------------------------------------------
# Eigendecompositions, as far as |y> needs them
# --------------------------------------------------------------------------------------------------


class Ends(NamedTuple):
    """The lowest eigenvalue of K~, the smallest magnitude of one, and the highest one."""

    lowest: float
    smallest: float
    highest: float

    def is_singular(self, n: int) -> bool:
        """Whether K~ [n, n] is singular to rounding, or its eigenvalues were not found, NaN."""
        largest = max(abs(self.lowest), abs(self.highest))
        return not self.smallest > n * np.finfo(float).eps * largest


class Spectrum(NamedTuple):
    """Eigenvalues [m] and vectors V [n, m] of K~, labels V'y/|y| [m], and all of K~'s ends."""

    eigenvalues: Vector
    labels: Vector
    vectors: NDArray[np.float64]
    ends: Ends


def whole_spectrum(matrix: NDArray[np.float64], y: Vector) -> Spectrum:
    """All of K~ = matrix, symmetric [n, n]."""
    eigenvalues, vectors = scipy.linalg.eigh(matrix)
    ends = Ends(eigenvalues[0], np.abs(eigenvalues).min(), eigenvalues[-1])
    return Spectrum(eigenvalues, vectors.T @ (y / np.linalg.norm(y)), vectors, ends)


def reached_from(matrix: scipy.sparse.csr_array, y: Vector) -> Spectrum | None:
    """The part of a sparse K~ that its polynomials reach from |y>, by the Lanczos process; None
    where it finds no end.

    After m steps, V'K~V = T is tridiagonal and f(K~)|y> = V f(T) V'|y> for every polynomial f of a
    degree below m; for others it is as wrong as the best of those. For 1/x that is seen from the
    residual of K~^-1|y>. The solvers' polynomials are close to 1/x on the spectrum: as many steps
    again leave nothing of their difference. Saad, Iterative Methods, section 6.6; all vectors are
    kept orthogonal.
    """
    most = min(len(y), MOST_VECTORS)
    vectors = np.zeros((most, len(y)))
    diagonal, beside = np.zeros(most), np.zeros(most)
    vectors[0] = y / np.linalg.norm(y)
    enough = most
    for m in range(1, most + 1):
        image = matrix @ vectors[m - 1]
        diagonal[m - 1] = vectors[m - 1] @ image
        image = orthogonal_part(image, vectors[:m])
        beside[m - 1] = np.linalg.norm(image)
        if enough == most and m % 8 == 0 and residual(diagonal[:m], beside[:m]) < RESIDUAL:
            enough = min(2 * m, most)
        is_whole = beside[m - 1] <= len(y) * np.finfo(float).eps * np.abs(diagonal[:m]).max()
        if is_whole or m == enough:
            break
        vectors[m] = image / beside[m - 1]
    if not is_whole and residual(diagonal[:m], beside[:m]) >= RESIDUAL:
        return None
    eigenvalues, small = scipy.linalg.eigh_tridiagonal(diagonal[:m], beside[: m - 1])
    ends = ends_of_spectrum(matrix, eigenvalues)
    return Spectrum(eigenvalues, small[0], vectors[:m].T @ small, ends)


def orthogonal_part(vector: Vector, others: NDArray[np.float64]) -> Vector:
    """What remains of a vector [n] without its parts along others [m, n], of unit norm each."""
    for _ in range(2):  # once leaves rounding errors, which would grow
        vector = vector - others.T @ (others @ vector)
    return vector


def residual(diagonal: Vector, beside: Vector) -> float:
    """|K~ w - |y>| of the solution w of m steps of `reached_from`, from T's diagonals [m]."""
    eigenvalues, vectors = scipy.linalg.eigh_tridiagonal(diagonal, beside[:-1])
    with np.errstate(all="ignore"):
        last = np.sum(vectors[-1] * vectors[0] / eigenvalues)
    return float(np.nan_to_num(abs(beside[-1] * last), nan=np.inf))


def ends_of_spectrum(matrix: scipy.sparse.csr_array, known: Vector) -> Ends:
    """Those of a sparse symmetric matrix; NaN where they aren't found.

    known: what lies between the ends.
    """
    start = np.random.default_rng(0).random(matrix.shape[0])

    def lanczos(**which: Any) -> float:
        how = dict(k=1, return_eigenvectors=False, v0=start, **which)
        try:
            return float(scipy.sparse.linalg.eigsh(matrix, **how)[0])
        except scipy.sparse.linalg.ArpackNoConvergence:
            return math.nan
        except RuntimeError:  # exactly singular: it has no inverse
            return 0.0

    lowest = np.minimum(lanczos(which="SA"), known.min())
    highest = np.maximum(lanczos(which="LA"), known.max())
    smallest = abs(lanczos(sigma=0)) if lowest <= 0 else lowest
    return Ends(lowest, smallest, highest)


def prepare(solver: str, encoding: Encoding, epsilon: float) -> Prepared:
    """What `solver`, one of SOLVERS, prepares within `epsilon` of K~^-1|y> through this block
    encoding.

    State and success probability are NaN where the solver does not apply (uses NaN too) or is too
    long to apply.
    """
    if solver == "CKS series":
        return series_of_walks(encoding, epsilon)
    if solver == "QSVT":
        return singular_value_transformation(encoding, epsilon)
    if solver == "series in E":
        return series_in_perturbation(encoding, epsilon)
    if solver == "kernel reflection":
        return kernel_reflection(encoding, epsilon)
    nothing, kappa = encoding.no_state, encoding.kappa
    if solver == "kernel reflection, norm unknown":
        # [Dalzell], abstract: 56 kappa + 1.05 kappa ln(1/eps) + o(kappa), in expectation, without
        # the o(kappa).
        uses = 56 * kappa + 1.05 * kappa * math.log(1 / epsilon)
    elif solver == "adiabatic":
        # [Costa]: walk steps, 1.84 an average over random matrices (proven: 2305), then a filter of
        # kappa ln(2/eps).
        uses = 1.84 * kappa + kappa * math.log(2 / epsilon)
    else:
        raise ValueError(f"solver {solver}: unknown; use one of {', '.join(SOLVERS)}")
    # Both reflect about |y> once a step, two uses every second step.
    return Prepared(nothing, uses, 1.0, uses, False)


def prepare_all(
    encodings: dict[str, Encoding], epsilons: Vector
) -> Iterator[tuple[tuple[int, int, int], Prepared]]:
    """What every solver prepares through every block encoding within epsilons [t].

    Yields (t, solver, encoding), it.
    """
    ways = itertools.product(enumerate(epsilons), enumerate(SOLVERS), enumerate(ENCODINGS))
    for (t, epsilon), (s, solver), (e, name) in ways:
        if name in encodings:
            yield (t, s, e), prepare(solver, encodings[name], epsilon)


def transformed(encoding: Encoding, values: Vector, bound: float, uses: float) -> Prepared:
    """f(H)|y> from f's values at the eigenvalues [n], for a circuit that applies f(H)/bound."""
    amplitudes = values * encoding.labels
    norm = float(np.linalg.norm(amplitudes))
    return Prepared(encoding.vectors @ amplitudes / norm, uses, min((norm / bound) ** 2, 1.0))


# --------------------------------------------------------------------------------------------------
# [CKS]: 1/x as a linear combination of Chebyshev polynomials
# --------------------------------------------------------------------------------------------------


def series_length(kappa: float, error: float) -> tuple[int, int]:
    """Lengths b and j_0 of [CKS], Lemma 14: 1/x on 1/kappa <= |x| <= 1 up to 2 * error; j_0 < b,
    where the series ends.

    b = ceil(kappa^2 ln(kappa/error)), j_0 = ceil(sqrt(b ln(4b/error))); the degree is 2 j_0 + 1.
    """
    b = max(1, math.ceil(kappa**2 * math.log(kappa / error)))
    return b, min(math.ceil(math.sqrt(b * math.log(4 * b / error))), b - 1)


def series_coefficients(b: int, j0: int) -> Vector:
    """Coefficients of T_1, T_3, ..., T_{2 j_0 + 1} in g(x) ~ 1/x, [CKS] Lemma 14. [j0 + 1]

    g(x) = 4 sum_{j=0}^{j_0} (-1)^j [sum_{i=j+1}^b binom(2b, b+i) / 2^{2b}] T_{2j+1}(x). The bracket
    is the probability of more than b + j heads in 2b tosses, which does not overflow.
    """
    j = np.arange(j0 + 1)
    return 4 * (-1.0) ** j * scipy.stats.binom.sf(b + j, 2 * b, 0.5)


def series_of_walks(encoding: Encoding, epsilon: float) -> Prepared:
    """[CKS]'s Chebyshev solver. T_m(H) takes m uses of the block encoding U = T'ST, alternately U
    and its inverse.

    In CKS's terms: the walk W = S(2TT' - 1) has T'W^m T = T_m(H), and as WT = ST its first step
    needs no reflection: 2m uses of the isometry T. |H^-1 y| >= |y|, so that the absolute error 2 *
    error is also a relative one.
    """
    b, j0 = series_length(encoding.kappa, relative_error(epsilon) / 2)
    degree = 2 * j0 + 1
    if degree > LARGEST_DEGREE:
        return Prepared(encoding.no_state, degree, np.nan)
    series = np.zeros(degree + 1)
    series[1::2] = series_coefficients(b, j0)
    values = np.asarray(np.polynomial.chebyshev.chebval(encoding.eigenvalues, series), np.float64)
    return transformed(encoding, values, float(np.abs(series).sum()), degree)


# --------------------------------------------------------------------------------------------------
# Quantum singular value transformation by the polynomial of least relative error
# --------------------------------------------------------------------------------------------------


def chebyshev_outside(degree: int, x: float) -> float:
    """T_degree(x) of x >= 1."""
    return math.cosh(degree * math.acosh(x))


def inverse_steps(kappa: float, relative: float) -> int:
    """Smallest n for which `inverse_polynomial`, of degree 2n - 1, is within `relative` of 1/x."""
    start = (1 + kappa**-2) / (1 - kappa**-2)
    return max(1, math.ceil(math.acosh(max(1 / relative, 1)) / math.acosh(start)))


def inverse_polynomial(n: int, kappa: float, x: Vector) -> Vector:
    """p(x), odd, of degree 2n - 1, with 1 - x p(x) = T_n(v(x))/T_n(v(0)).

    v(x) = (2x^2 - 1 - d)/(1 - d), d = 1/kappa^2. |1 - x p(x)| <= 1/|T_n(v(0))| where 1/kappa <= |x|
    <= 1, and no polynomial of that degree has less there: it is the residual of the Chebyshev
    iteration (Saad, Iterative Methods, section 6.11) for H^2. x: within [-1, 1], not 0.
    """
    d = kappa**-2
    v = (2 * x**2 - 1 - d) / (1 - d)
    inside, outside = (
        np.cos(n * np.arccos(np.clip(v, -1, 1))),
        np.cosh(n * np.arccosh(np.maximum(-v, 1))),
    )
    # v <= 1, and T_n(v) = (-1)^n T_n(-v): both signs are T_n(v(0))'s below -1
    ratio = np.where(v < -1, outside, (-1.0) ** n * inside) / chebyshev_outside(
        n, (1 + d) / (1 - d)
    )
    return (1 - ratio) / x


def inverse_bound(n: int, kappa: float) -> float:
    """Largest |p| of `inverse_polynomial` on [-1, 1], reached between 0 and 1/kappa.

    About 1.5 kappa; with HEADROOM.
    """
    x = np.linspace(1e-3, 1.5, 3001) / kappa
    x = x[x <= 1]
    values = np.abs(inverse_polynomial(n, kappa, x))
    best = int(np.argmax(values))
    bracket = x[max(best - 1, 0)], x[min(best + 1, len(x) - 1)]
    found = scipy.optimize.minimize_scalar(
        lambda at: -abs(inverse_polynomial(n, kappa, np.array(at))),
        bounds=bracket,
        method="bounded",
    )
    return (1 + HEADROOM) * max(float(values[best]), float(-found.fun))


def singular_value_transformation(encoding: Encoding, epsilon: float) -> Prepared:
    """QSVT ([GSLW], Corollary 18).

    An odd real polynomial of degree 2n - 1 takes as many uses of the block encoding.
    """
    n = inverse_steps(encoding.kappa, relative_error(epsilon))
    if 2 * n - 1 > LARGEST_DEGREE:
        return Prepared(encoding.no_state, 2 * n - 1, np.nan)
    values = inverse_polynomial(n, encoding.kappa, encoding.eigenvalues)
    return transformed(encoding, values, inverse_bound(n, encoding.kappa), 2 * n - 1)


# --------------------------------------------------------------------------------------------------
# [Dalzell]: reflection about the kernel of the augmented system
# --------------------------------------------------------------------------------------------------


def reflection_steps(kappa: float, epsilon: float) -> int:
    """Smallest l for which the reflection's polynomial, of degree 2l, leaves |w> within `epsilon`.

    K(x) = 2 (T_l(z(x)) + 1)/(T_l(z(0)) + 1) - 1 with z(x) = (1 + d - 2x^2)/(1 - d), d = 1/kappa^2
    ([Dalzell], eq. 62) is 1 at 0 and -1 + [0, m] from 1/kappa on, m = 4/(T_l(z(0)) + 1). The middle
    of that range scales |w> by 1 - m/4, the rest, at most m/2, meets a vector of norm 1/sqrt(2). So
    degree -> kappa ln(2 sqrt(2)/epsilon).
    """

    def enough(steps: int) -> bool:
        m = 4 / (chebyshev_outside(steps, (1 + kappa**-2) / (1 - kappa**-2)) + 1)
        return m / (2 * math.sqrt(2)) <= relative_error(epsilon) * (1 - m / 4)

    steps = max(1, int(kappa * math.log(2 * math.sqrt(2) / epsilon) / 2) - 2)
    while steps > 1 and enough(steps):
        steps = max(1, steps - 10)
    while not enough(steps):
        steps += 1
    return steps


def kernel_reflection(encoding: Encoding, epsilon: float) -> Prepared:
    """[Dalzell]'s solver with |H^-1 y| known, on the augmented matrix itself.

    A = diag(H, 1/t), t = |H^-1 y|, b = (|y>, 1)/sqrt(2) and G = (1 - bb')A: A^-1 b spans G's
    kernel, and reflecting (0, 1) about it gives (|w>, 0). All other singular values of G are at
    least 1/kappa, by interlacing. K(G), of degree 2l, takes 2l uses of A, so of H's block encoding,
    and l reflections about b of two label queries each.
    """
    steps = reflection_steps(encoding.kappa, epsilon)
    if 2 * steps > LARGEST_DEGREE:
        return Prepared(encoding.no_state, 2 * steps, np.nan, 2 * steps)
    d = encoding.kappa**-2
    t = np.linalg.norm(encoding.labels / encoding.eigenvalues)
    b = np.append(encoding.vectors @ encoding.labels, 1) / math.sqrt(2)

    def augmented(v: Vector) -> Vector:
        return np.append(encoding.matrix @ v[:-1], v[-1] / t)

    def z(v: Vector) -> Vector:
        image = augmented(v)
        return ((1 + d) * v - 2 * augmented(image - b * (b @ image))) / (1 - d)

    start = np.append(np.zeros(len(b) - 1), 1.0)
    previous, current = start, z(start)
    for _ in range(steps - 1):
        previous, current = current, 2 * z(current) - previous
    reflected = 2 * (current + start) / (chebyshev_outside(steps, (1 + d) / (1 - d)) + 1) - start
    norm = float(np.linalg.norm(reflected[:-1]))
    return Prepared(reflected[:-1] / norm, 2 * steps, min(norm**2, 1.0), 2 * steps)


# --------------------------------------------------------------------------------------------------
# A polynomial of E: the identity needs no query
# --------------------------------------------------------------------------------------------------


def perturbation_degree(radius: float, relative: float) -> int:
    """Smallest degree at which `perturbation_polynomial` is within `relative` of 1/(1 + e).

    For |e| <= radius < 1.
    """
    return max(0, math.ceil(math.acosh(max(1 / relative, 1)) / math.acosh(1 / radius) - 1e-12) - 1)


def perturbation_polynomial(degree: int, radius: float, e: Vector) -> Vector:
    """p(e) with 1 - (1 + e) p(e) = T_{m+1}(-e/radius)/T_{m+1}(1/radius), m = degree: 1 for m = 0.
    e: not -1.

    No polynomial of that degree has a smaller |1 - (1 + e) p(e)| on |e| <= radius: it is the
    residual of the Chebyshev iteration for I + E (Saad, Iterative Methods, section 6.11).
    """
    chebyshev = np.polynomial.chebyshev.Chebyshev.basis(degree + 1)
    return (1 - chebyshev(-e / radius) / chebyshev_outside(degree + 1, 1 / radius)) / (1 + e)


def series_in_perturbation(encoding: Encoding, epsilon: float) -> Prepared:
    """(I + E)^-1 by a polynomial of E alone, its even and its odd part combined: `degree` uses of
    E's block encoding.

    Each part by QSVT ([GSLW], Corollary 18), their sum as a linear combination of unitaries
    ([GSLW], Lemma 52).

    Of degree 0 where |E| <= `relative_error`(epsilon): |y> is |w> up to epsilon, and no query is
    needed. The radius of the interval, from |E| up, trades the degree for the polynomial's size on
    |e| <= beta. |E| is assumed known, as kappa is for the others. Only for the encoding "I + E",
    and beta < 1, where 1/(1 + e) is bounded; elsewhere NaN.
    """
    nothing = Prepared(encoding.no_state, np.nan, np.nan, np.nan)
    if encoding.perturbation is None or not encoding.beta < 1:
        return nothing
    least = max(encoding.radius, np.finfo(float).eps)
    grid = encoding.beta * np.linspace(0, 1, 500)
    best = nothing
    for radius in np.geomspace(least, max(encoding.beta, least), 8):
        degree = perturbation_degree(radius, relative_error(epsilon))
        with np.errstate(over="ignore", invalid="ignore"):
            above, below = (
                perturbation_polynomial(degree, radius, sign * grid) for sign in (1, -1)
            )
            bound = np.abs(above + below).max() / 2 + np.abs(above - below).max() / 2
        if not np.isfinite(bound):
            continue
        values = perturbation_polynomial(degree, radius, encoding.perturbation)
        found = transformed(encoding, values, bound * (1 + HEADROOM * (degree > 0)), degree)
        cheaper = (found.uses + 1) ** 2 * best.success_probability < (
            best.uses + 1
        ) ** 2 * found.success_probability
        if cheaper or np.isnan(best.uses):
            best = found
    return best
