"""The emulated quantum algorithm against its formulas, explicit unitaries and matrices solved by hand; its script."""

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from conftest import ROOT

import emulation
import training


def random_kernel(n, rng, negative=False):
    """A symmetric sparse matrix [n, n] with a positive diagonal, or with `negative` entries, and then indefinite."""
    matrix = rng.uniform(-1 if negative else 0, 1, (n, n)) * (rng.random((n, n)) < 3 / n)
    matrix = matrix + matrix.T
    np.fill_diagonal(matrix, 0.3 if negative else 1 + matrix.sum(axis=0))
    return matrix


@pytest.fixture
def digits_kernel(digits):
    """K~ [16, 16] and y of scikit-learn's 8 and 9 in a shallow network, so that K~ is far from diagonal."""
    x, y = training.process_data(digits["train"], (8, 9), 8, True, np.random.default_rng(0))
    pattern = training.sparsity_pattern(16, np.random.default_rng(1))
    return training.sparsify_unbiased(training.fully_connected_ntk(x, depth=3), pattern), y


# ----------------------------------------------------------------------------------------------------------------------
# The series
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [0.1, 1e-3, 1e-6, 1e-10])
@pytest.mark.parametrize("kappa", [1, 1.2, 2, 7, 40])
def test_series_is_within_twice_the_error(kappa, error):
    b, j0 = emulation.series_length(kappa, error)
    series = np.zeros(2 * j0 + 2)
    series[1::2] = emulation.series_coefficients(b, j0)
    x = np.geomspace(1 / kappa, 1, 2000)
    for sign in (1, -1):
        difference = np.abs(np.polynomial.chebyshev.chebval(sign * x, series) - sign / x).max()
        assert difference <= 2 * error + 1e-13 * kappa, difference


def test_series_length_is_the_papers():
    # 4 ln 200 = 21.19, 22 ln 8800 = 199.8 = 14.14^2
    assert emulation.series_length(2, 0.01) == (22, 15)
    # ln 1000 = 6.9; 7 ln 28000 = 8.47^2, but the series of (1 - (1 - x^2)^7)/x ends at T_13
    assert emulation.series_length(1, 0.001) == (7, 6)
    assert emulation.series_length(1, 0.99) == (1, 0)


def test_coefficients_are_binomial_sums():
    b = 9
    tails = [sum(Fraction(math.comb(2 * b, b + i), 4**b) for i in range(j + 1, b + 1)) for j in range(b)]
    exact = [4 * (-1) ** j * tail for j, tail in enumerate(tails)]
    np.testing.assert_allclose(emulation.series_coefficients(b, b - 1), [float(e) for e in exact], rtol=1e-13)
    b = 10**10  # 4 P(more than b heads) = 2 (1 - P(b heads)), P(b heads) = 1/sqrt(pi b)
    np.testing.assert_allclose(emulation.series_coefficients(b, 0), 2 * (1 - 1 / np.sqrt(np.pi * b)), rtol=1e-9)


# ----------------------------------------------------------------------------------------------------------------------
# The solver
# ----------------------------------------------------------------------------------------------------------------------


def test_solver_by_hand():
    found = emulation.chebyshev_solve(np.diag([2.0, 1.0]), np.ones(2), error=0.04)
    assert found["kappa"] == 2 and found["degree"] == 31  # the series above, of error 0.01
    # 31 steps of 6 queries (T' and T, each 3), and T and T' around them
    assert found["oracle_queries"] == 31 * 6 + 6
    assert found["positive_definite"]
    np.testing.assert_allclose(found["state"], np.array([1, 2]) / np.sqrt(5), atol=0.04)
    # H^-1 |y> = (1, 2)/sqrt(2), of squared norm 5/2
    np.testing.assert_allclose(found["success_probability"] * found["lcu_norm"] ** 2, 2.5, rtol=0.01)
    coefficients = emulation.series_coefficients(22, 15)
    assert found["lcu_norm"] == pytest.approx(np.abs(coefficients).sum())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3.7, 1e8])
def test_multiples_of_the_identity(scale):
    y = np.array([1.0, -1, 1, -1, 1])
    found = emulation.chebyshev_solve(scale * np.eye(5), y, error=1e-4)
    assert found["kappa"] == pytest.approx(1) and 0 < found["success_probability"] <= 1
    np.testing.assert_allclose(found["state"], y / np.sqrt(5), atol=1e-14)


def test_diagonal_matrix():
    diagonal = np.array([1.0, 3, 8, 0.5])
    found = emulation.chebyshev_solve(np.diag(diagonal), np.ones(4), error=1e-6)
    expected = 1 / diagonal / np.linalg.norm(1 / diagonal)
    assert found["kappa"] == pytest.approx(16)
    assert np.linalg.norm(found["state"] - expected) <= 1e-6


def test_indefinite_matrix_is_inverted_and_flagged():
    # eigenvalues 3 and -1; the inverse of [[1, 2], [2, 1]] is [[-1, 2], [2, -1]]/3
    found = emulation.chebyshev_solve(np.array([[1.0, 2], [2, 1]]), np.array([1.0, 0]), error=1e-6)
    assert not found["positive_definite"]
    assert found["kappa"] == pytest.approx(4)  # s max|K~| = 4, beside a smallest magnitude of 1
    np.testing.assert_allclose(found["state"], np.array([-1, 2]) / np.sqrt(5), atol=1e-6)


@pytest.mark.parametrize("error", [0.1, 1e-4, 1e-9])
@pytest.mark.parametrize("negative", [False, True])
def test_error_stays_below_the_one_asked_for(error, negative):
    rng = np.random.default_rng(7)
    for n in (3, 10, 30):
        matrix, y = random_kernel(n, rng, negative), rng.standard_normal(n)
        found = emulation.chebyshev_solve(matrix, y, error)
        assert np.linalg.norm(found["state"] - training.solve(matrix, y)) <= error
        assert 0 < found["success_probability"] <= 1


def test_what_cannot_be_applied_is_counted(monkeypatch):
    found = emulation.chebyshev_solve(np.ones((3, 3)), np.ones(3), 1e-4)  # eigenvalues 3, 0, 0 up to rounding
    assert np.isnan(found["state"]).all() and found["degree"] > 1e6 and np.isnan(found["success_probability"])
    assert emulation.chebyshev_solve(np.diag([1.0, 0]), np.ones(2), 1e-4)["oracle_queries"] == np.inf
    monkeypatch.setattr(emulation, "most_degree", 30)
    found = emulation.chebyshev_solve(np.diag([2.0, 1.0]), np.ones(2), 0.04)
    assert np.isnan(found["state"]).all() and found["degree"] == 31 and found["oracle_queries"] == 192


# ----------------------------------------------------------------------------------------------------------------------
# The same with explicit unitaries
# ----------------------------------------------------------------------------------------------------------------------


def explicit_walk(matrix):
    """The isometry T [4n^2, n] and the walk W = S(2TT' - 1) [4n^2, 4n^2] of CKS section 4 as dense matrices.

    T|j> = |j> (1/sqrt(s)) sum over s columns k, those of j's non-zeros among them, of sqrt(a_jk)|k> + sqrt(1 - |a_jk|)
    |k + n>, with a = K~ / max|K~|, in two registers of 2n states; then T' S T = a/s = H and T' W^m T = T_m(H). The
    roots of a_jk < 0 are i above the diagonal and -i below it; raises ValueError for one on it.
    """
    n, s = len(matrix), training.sparsity(matrix)
    a = matrix / np.abs(matrix).max()
    if np.any(np.diag(a) < 0):
        raise ValueError(f"diagonal entry {np.diag(matrix).min()}: the walk has no root for it; use none below 0")
    columns = np.argsort(a == 0, axis=1, kind="stable")[:, :s]  # row j's non-zeros, then zeros up to s
    j = np.arange(n)[:, None]
    entries = np.take_along_axis(a, columns, axis=1)
    phase = np.where(entries < 0, np.where(j < columns, 1j, -1j), 1)
    isometry = np.zeros((2 * n, 2 * n, n), dtype=complex if np.any(a < 0) else float)
    isometry[j, columns, j] = (phase if np.any(a < 0) else 1) * np.sqrt(np.abs(entries) / s)
    isometry[j, columns + n, j] = np.sqrt((1 - np.abs(entries)) / s)
    isometry = isometry.reshape(4 * n * n, n)
    reflection = 2 * isometry @ isometry.conj().T - np.eye(4 * n * n)
    swap = np.arange(4 * n * n).reshape(2 * n, 2 * n).T.ravel()
    return isometry, reflection[swap]


def check_walk(matrix, y, error):
    """Compare the walk's amplitudes with the recurrence's, term by term and in the solution. Prints the difference."""
    isometry, walk = explicit_walk(matrix)
    identity = np.eye(len(y))
    np.testing.assert_allclose(isometry.conj().T @ isometry, identity, atol=1e-14)
    np.testing.assert_allclose(walk @ walk.conj().T, np.eye(len(walk)), atol=1e-13)
    h = emulation.block_encode(matrix)
    np.testing.assert_allclose(isometry.conj().T @ walk @ isometry, h.toarray(), atol=1e-14)  # T'W T = T'S T

    y = y / np.linalg.norm(y)
    found = emulation.chebyshev_solve(matrix, y, error)
    coefficients = emulation.series_coefficients(*emulation.series_length(found["kappa"], error / 4))
    state, x, differences = isometry @ y, 0, []
    for degree, expected in zip(range(1, found["degree"] + 1), emulation.chebyshev_vectors(h, y), strict=False):
        state = np.einsum("ij,j", walk, state)  # without BLAS, whose threads crawl where other jobs share the cores
        amplitudes = isometry.conj().T @ state
        differences.append(np.abs(amplitudes - expected).max())
        x = x + (coefficients[degree // 2] * amplitudes if degree % 2 else 0)
    print(f"degree {found['degree']}: the walk's amplitudes differ by {max(differences):.1e}")
    assert max(differences) < 1e-12
    np.testing.assert_allclose(x / np.linalg.norm(x), found["state"], atol=1e-12)
    probability = np.linalg.norm(x / found["lcu_norm"]) ** 2
    np.testing.assert_allclose(probability, found["success_probability"], rtol=1e-11)


def test_walk_of_a_real_kernel(digits_kernel):
    check_walk(*digits_kernel, error=1e-4)


def test_walk_with_negative_entries():
    matrix = random_kernel(6, np.random.default_rng(3), negative=True)
    assert (matrix < 0).any() and np.linalg.eigvalsh(matrix)[0] < 0
    check_walk(matrix, np.arange(1.0, 7), error=1e-3)


def test_combination_as_one_unitary():
    """PREPARE, SELECT of the powers of W, PREPARE', all as matrices: the amplitudes are those of g(H)/alpha."""
    matrix, y = np.array([[2.0, 0.7], [0.7, 1.5]]), np.array([0.6, -0.8])
    found = emulation.chebyshev_solve(matrix, y, error=0.5)
    coefficients = emulation.series_coefficients(*emulation.series_length(found["kappa"], 0.125))
    isometry, walk = explicit_walk(matrix)
    terms, size = len(coefficients), len(walk)
    # A Householder reflection takes |0> to sum_j sqrt(|c_j|/alpha) |j>.
    difference = np.sqrt(np.abs(coefficients) / found["lcu_norm"]) - np.eye(terms)[0]
    difference /= np.linalg.norm(difference)
    prepare = np.kron(np.eye(terms) - 2 * np.outer(difference, difference), np.eye(size))
    select = np.zeros((terms, size, terms, size))
    for j, coefficient in enumerate(coefficients):
        select[j, :, j] = np.sign(coefficient) * np.linalg.matrix_power(walk, 2 * j + 1)
    unitary = prepare.T @ select.reshape(terms * size, -1) @ prepare
    np.testing.assert_allclose(unitary @ unitary.T, np.eye(terms * size), atol=1e-12)
    amplitudes = isometry.T @ (unitary @ np.kron(np.eye(terms)[0], isometry @ y)).reshape(terms, size)[0]
    np.testing.assert_allclose(np.linalg.norm(amplitudes) ** 2, found["success_probability"], rtol=1e-12)
    np.testing.assert_allclose(amplitudes / np.linalg.norm(amplitudes), found["state"], atol=1e-12)


# ----------------------------------------------------------------------------------------------------------------------
# State preparation, readout, costs
# ----------------------------------------------------------------------------------------------------------------------


def test_post_selection_by_hand():
    k = np.array([[0.5, 0.0], [0.1, 0.1]])
    expected = [[0.5, 0.04], [0.125, 0.01]]  # divided by the largest entry 0.5, and as it is
    np.testing.assert_allclose(emulation.post_selection_probability(k), expected)


def right(overlap, m, t):
    """Probability that M shots put o on the right side of t, by the binomial distribution."""
    above = scipy.stats.binom.sf(np.floor(m * (1 + t) / 2 + 1e-9), m, (1 + overlap) / 2)
    return np.where(overlap > t, above, 1 - above)


def test_shots_reproduce_binomial_error_bars(monkeypatch):
    monkeypatch.setattr(emulation, "repetitions", 2000)
    overlap = np.array([-0.3, -0.05, 0.02, 0.1, 0.4])
    label = np.array([-1, -1, 1, 1, 1])
    found = emulation.accuracy_by_shots(overlap, label, np.random.default_rng(5))
    assert found.shape == (2, len(emulation.shots))
    for accuracy, t, signs in ((found[0], 0, overlap > 0), (found[1], 0.02, overlap > 0.02)):
        p = np.array([right(overlap, m, t) for m in emulation.shots])
        p = np.where(signs == (label > 0), p, 1 - p)
        # At the threshold itself chance decides for ever, with any number of shots.
        error = np.sqrt(np.sum(p * (1 - p), axis=1) / 2000) / len(overlap)
        assert np.all(np.abs(accuracy - p.mean(axis=1)) <= 5 * error + 1e-12), t
        # and the error bars are no wider than the spread that is there
        spread = np.std((accuracy - p.mean(axis=1))[error > 0] / error[error > 0])
        assert 0.4 < spread < 2


def test_sampler_predicts_as_the_diagonal_algorithm_does():
    rng = np.random.default_rng(2)
    y = np.repeat([1.0, -1.0], 8)
    label = np.where(np.arange(40) < 20, 1, -1)
    # Both classes are above 0, as the convolutional network's may be: only the median, and a normalised o, tell them.
    k = 0.3 + 0.1 * rng.random((40, 16)) + (0.1 + 0.05 * label[:, None]) * y
    overlap = emulation.overlaps(k, y)
    sampled = emulation.accuracy_by_samples(k, y, label, np.random.default_rng(3))
    shots = emulation.accuracy_by_shots(overlap, label, np.random.default_rng(4))
    noiseless = emulation.read_out(overlap, label, overlap)
    np.testing.assert_allclose(sampled[:, -1], noiseless, atol=0.02)
    assert noiseless.tolist() == [0.5, 1]
    # about as many samples as shots: within two of the grid's steps of a fifth of a decade
    needed = [emulation.shots_needed(accuracy, noiseless)[1] for accuracy in (sampled, shots)]
    assert abs(np.log10(needed[0] / needed[1])) < 0.45, needed


def test_sampler_where_only_one_entry_counts():
    """With a single k_i other than 0 the estimate is its exact sign, or 0 before i is drawn."""
    k, y = np.array([[0.0, 1.0]]), np.array([-1.0, 1.0])
    found = emulation.accuracy_by_samples(k, y, np.array([1]), np.random.default_rng(0))
    assert 0.2 < found[0, 0] < 0.8 and found[0, -1] == 1


def test_shots_needed_by_hand():
    first = emulation.shots[:4]
    accuracy = np.full((4, len(emulation.shots)), 0.9)
    accuracy[1, :2] = 0.5  # from the third on
    accuracy[2, 2] = 0.5  # once more below: from the fourth on
    accuracy[3, -1] = 0.5  # below at the end
    np.testing.assert_array_equal(
        emulation.shots_needed(accuracy, np.full(4, 0.9)), [first[0], first[2], first[3], np.inf]
    )


def test_readout_rule_by_hand():
    # o = 0.5, 0.1, -0.2: 3, 99, 24 at 0; at the median 0.1: 0.75/0.16, inf, 0.96/0.09
    np.testing.assert_allclose(emulation.readout_rule(np.array([0.5, 0.1, -0.2])), [24, 0.96 / 0.09])


def test_amplification_by_hand():
    # p = 1/4: one round takes 30 degrees to 90, three uses; p = 1: none
    np.testing.assert_allclose(emulation.amplified_uses(np.array([1.0, 0.25])), [1, 3])
    p = np.geomspace(1e-14, 1, 500)
    uses = emulation.amplified_uses(p)
    every = np.arange(2000)[:, None]
    fewest = np.min((2 * every + 1) / np.sin((2 * every + 1) * np.arcsin(np.sqrt(p))) ** 2, axis=0)
    np.testing.assert_allclose(uses[p > 1e-6], fewest[p > 1e-6], rtol=1e-10)
    np.testing.assert_allclose(uses[p < 1e-6] * np.sqrt(p[p < 1e-6]), 1.38, rtol=0.01)
    assert np.all(uses <= 1 / p * (1 + 1e-12))


def test_cost_by_hand():
    post_selection, needed = np.array([[0.25] * 3, [1.0] * 3]), np.array([10, 100])
    oracle, qram = emulation.cost(6, 0.25, post_selection, needed)
    assert oracle.shape == qram.shape == (3, 2, 2)
    # sampled: 16 and 4 runs a shot, of 6 oracle and 2 + 2 QRAM queries
    np.testing.assert_allclose(oracle[0], [[960, 9600], [240, 2400]])
    np.testing.assert_allclose(qram[0], [[640, 6400], [160, 1600]])
    # amplified: with 1/16 as with 1/4 the fewest uses
    joint = emulation.amplified_uses(1 / 16)
    np.testing.assert_allclose(oracle[1, :, 0], [60 * joint, 180])
    # apart: 3 uses for |w>, 3 or 1 for |k*>
    np.testing.assert_allclose(oracle[2, :, 0], [180, 180])
    np.testing.assert_allclose(qram[2, :, 0], [10 * 2 * 6, 10 * 2 * 4])


def test_conjugate_gradients_by_hand():
    y = np.array([1.0, 1, 1])
    for matrix, expected in ((5 * np.eye(3), 1), (np.diag([1.0, 2, 2]), 2), (np.diag([1.0, 2, 4]), 3)):
        exact = training.solve(matrix, y)
        assert emulation.conjugate_gradient_iterations(matrix, y, exact, 1e-8) == expected
    # y' K~ y = 0: it stops at once
    matrix, y = np.diag([1.0, -1]), np.ones(2)
    assert np.isnan(emulation.conjugate_gradient_iterations(matrix, y, training.solve(matrix, y), 1e-8))


# ----------------------------------------------------------------------------------------------------------------------
# The command line, on kernels made up
# ----------------------------------------------------------------------------------------------------------------------


def write_trial(folder, prefix, size, trial, rng, seed=0, test_images=12):
    """The files of one trial: images of 8 pixels, inner products as a kernel."""
    x, y = rng.standard_normal((size, 8)), np.repeat([1.0, -1.0], size // 2)
    test, label = rng.standard_normal((test_images, 8)), np.repeat([1.0, -1.0], test_images // 2)
    x[:, 0], test[:, 0] = 2 * y, 2 * label
    arrays = {"train_label": y, "test_label": label, "kernel_train": x @ x.T + 8 * np.eye(size)}
    arrays["kernel_test_normalized"] = np.clip(test @ x.T / 10, -1, 1)
    for name, array in arrays.items():
        np.save(folder / f"{prefix}_seed{seed}_data{size}_trial{trial}_{name}.npy", array)


@pytest.fixture
def folder(tmp_path):
    """Kernels of two sizes and both networks; one fully-connected trial is incomplete, one number is skipped."""
    rng = np.random.default_rng(8)
    for prefix, size, trial in (
        *itertools.product(training.networks, (16,), (0, 1)), ("fully-connected", 4, 0), ("fully-connected", 4, 2),
        ("fully-connected", 8, 0),
    ):  # fmt: skip
        write_trial(tmp_path, prefix, size, trial, rng)
    (tmp_path / "fully-connected_seed0_data8_trial0_test_label.npy").unlink()
    return tmp_path


def emulate(folder, *arguments):
    """main() on a folder, as input and output."""
    return emulation.main(["--input", str(folder), "--output", str(folder), *map(str, arguments)])


def test_run_and_results(folder, capsys):
    assert emulate(folder) == 0
    assert "nan" not in capsys.readouterr().out.lower()
    with np.load(folder / "fully-connected_emulation.npz") as arrays:
        found = dict(arrays)
    assert found["data_sizes"].tolist() == [4, 16] and found["trials"].tolist() == [2, 2]
    assert np.isfinite(found["overlap_sparse"]).all(axis=(2, 3)).tolist() == [[True, False, True], [True, True, False]]
    assert found["accuracy_sparse"].shape == (2, 3, 3, 2, len(emulation.shots))
    assert found["cost_oracle_sparse"].shape == (2, 3, 3, 3, 2, 2)
    assert np.nanmax(found["solver_error"]) <= found["epsilon"] == emulation.epsilon
    assert (folder / "convolutional_emulation.npz").exists()
    # what training.py's own functions give for this trial
    load = {n: np.load(folder / f"fully-connected_seed0_data16_trial1_{n}.npy") for n in emulation.trial_files}
    rng = training.random_generator(0, "fully-connected", 16, 1, "pattern 2")
    matrix = training.sparsify_unbiased(load["kernel_train"], training.sparsity_pattern(16, rng))
    weights = training.solve(matrix, load["train_label"])
    exact = training.readout_measurements(load["kernel_test_normalized"], weights)
    np.testing.assert_allclose(1 / found["overlap_sparse"][1, 1, 2] ** 2 - 1, exact, rtol=1e-2)
    assert found["readout_rule_sparse"][1, 1, 2, 0] == pytest.approx(np.median(exact), rel=1e-2)
    attempts = training.post_selection_measurements(load["kernel_test_normalized"])
    np.testing.assert_allclose(1 / found["post_selection_probability"][1, 1, 0], attempts)
    # the diagonal algorithm has no solver; the sparsified one costs more of everything
    cost = {n: found[f"cost_qram_{n}"][1, 1] for n in ("diagonal", "sparse")}
    assert np.isfinite(cost["diagonal"]).all() and np.all(cost["sparse"][:, 0] > cost["diagonal"][0])


def test_attempts_are_geometric(monkeypatch):
    rng = np.random.default_rng(1)
    monkeypatch.setattr(emulation, "repetitions", 1)
    k = np.full((4000, 4), 0.5)
    kernels = {"train_label": np.repeat([1.0, -1], 2), "test_label": np.ones(4000), "kernel_test_normalized": k}
    found = emulation.emulate_trial(kernels, [np.eye(4)], 1e-3, lambda _: rng)
    assert np.all(found["post_selection_attempts"][0] == 1)  # P = 1 once divided by the largest entry
    mean = found["post_selection_attempts"][1].mean()  # P = 1/4: mean 4, variance 12
    assert abs(mean - 4) < 5 * np.sqrt(12 / 4000)


def test_resume_computes_nothing_again(folder, monkeypatch):
    assert emulate(folder) == 0
    files = {path: path.read_bytes() for path in folder.iterdir()}
    computed = []
    original = emulation.emulate_trial
    monkeypatch.setattr(emulation, "emulate_trial", lambda *a: computed.append(a) or original(*a))
    assert emulate(folder) == 0 and not computed
    # a file is lost, one is cut short, a kernel has changed: three trials again, and the same bytes
    (folder / "fully-connected_seed0_data16_trial0_emulation.npy").unlink()
    cut = folder / "fully-connected_seed0_data16_trial1_emulation.npy"
    cut.write_bytes(cut.read_bytes()[:1000])
    assert emulate(folder) == 0 and len(computed) == 2
    assert {path: path.read_bytes() for path in folder.iterdir()} == files
    changed = folder / "convolutional_seed0_data16_trial1_kernel_train.npy"
    np.save(changed, np.load(changed) * 1.5)
    assert emulate(folder) == 0 and len(computed) == 3
    assert emulate(folder, "--epsilon", 0.01, "--networks", "convolutional") == 0 and len(computed) == 5


def test_subset_is_the_same_trial(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("subset")
    arguments = ["--networks", "fully-connected", "--data-sizes", "16", "--trials", "1"]
    assert emulation.main(["--input", str(folder), "--output", str(other), *arguments]) == 0
    assert emulate(folder) == 0
    name = "fully-connected_seed0_data16_trial0_emulation.npy"
    assert (other / name).read_bytes() == (folder / name).read_bytes()
    assert len(list(other.iterdir())) == 2


def test_digits_are_announced(tmp_path, capsys):
    write_trial(tmp_path, "digits-fully-connected", 4, 0, np.random.default_rng(0))
    assert emulate(tmp_path) == 0
    out = capsys.readouterr().out
    assert "NOT OF MNIST" in out and "nothing to emulate of the convolutional network" in out
    assert (tmp_path / "digits-fully-connected_emulation.npz").exists()


def test_indefinite_and_singular_kernels_are_told(tmp_path, capsys):
    write_trial(tmp_path, "fully-connected", 4, 0, np.random.default_rng(0))
    path = tmp_path / "fully-connected_seed0_data4_trial0_kernel_train.npy"
    np.save(path, np.diag([1.0, -1, 1, 1]))
    assert emulate(tmp_path) == 0
    assert "K~ 3 of which indefinite 3" in capsys.readouterr().out
    np.save(path, np.diag([1.0, 0, 1, 1]))
    assert emulate(tmp_path) == 0
    assert "3 K~ singular" in capsys.readouterr().out
    with np.load(tmp_path / "fully-connected_emulation.npz") as arrays:
        assert np.isnan(arrays["overlap_sparse"]).all() and np.isfinite(arrays["overlap_diagonal"]).all()
        assert np.isinf(arrays["degree"]).all()


def test_bad_inputs_are_one_line(folder, capsys):
    def complaint(*arguments):
        assert emulate(folder, *arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("emulation.py: error: "), lines
        return lines[0]

    assert "no such complete trial" in complaint("--seed", 5)
    assert "no such complete trial" in complaint("--data-sizes", 64)
    path = folder / "convolutional_seed0_data16_trial1_kernel_test_normalized.npy"
    good = np.load(path)
    for bad in (good[:, :3], good * np.nan, np.zeros_like(good)):
        np.save(path, bad)
        assert path.name in complaint("--networks", "convolutional")
    path.write_bytes(b"no array")
    assert path.name in complaint("--networks", "convolutional")
    write_trial(folder, "convolutional", 16, 1, np.random.default_rng(0), test_images=20)
    assert "trials of 12 and 20 test images" in complaint("--networks", "convolutional")
    (folder / "convolutional_seed0_data16_trial0_kernel_train.npy").unlink()
    assert "data16_trial0_kernel_train" in complaint("--networks", "convolutional")
    assert "Not a directory" in complaint("--output", folder / "fully-connected_seed0_data4_trial0_test_label.npy/x")


@pytest.mark.parametrize("option", [("--epsilon", "0"), ("--trials", "0"), ("--networks", "quantum"), ("--seed", "x")])
def test_bad_options_end_with_status_2(option, capsys):
    with pytest.raises(SystemExit) as ended:
        emulation.main(list(option))
    assert ended.value.code == 2 and option[1] in capsys.readouterr().err


def test_script_explains_itself():
    command = [sys.executable, str(ROOT / "emulation.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for flag in ("--networks", "--data-sizes", "--trials", "--seed", "--epsilon", "--input", "--output"):
        assert flag in done.stdout
    assert done.stdout.count("(default:") == 7
