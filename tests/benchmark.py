"""Benchmark of the kernels, by hand: every engine against neural-tangents, in one run on one
machine.

    python tests/benchmark.py                      # all parts, under ten minutes on two cores
    python tests/benchmark.py --parts convolutional fully-connected

Writes tests/BENCHMARK.md, of which a run replaces the parts that it made. Run it on an idle
machine. Everything is compiled before it is timed; what is compared runs in turn, several times
over, and the shortest time of each counts. Ratios within one run are the claim; times depend on the
machine. Images are MNIST where MNIST_DIR is set, else scikit-learn's digits; speed does not depend
on them.
"""

import argparse
import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import gpu_plan

import training
from ntk import convolutional_ntk, fully_connected_ntk, has_accelerator
from ntk.convolutional import ConvolutionalPairs
from runtime.datasets import load_images
from runtime.trials import Trial

REPORT = Path(__file__).with_name("BENCHMARK.md")
CONVOLUTIONAL_DEPTH = 96
DENSE_DEPTH = 83  # that of the plan at n = 512
FEATURES = "fma avx2 avx512f avx512dq avx512vl"  # of a processor, that decide the engines' speed


def draw(n, digits=(1, 0), flatten=False, split="train"):
    """Standardised images [n, ...] of two digits, repeated where there are not so many, and their labels [n]."""
    images = load_images("mnist" if os.environ.get("MNIST_DIR") else "digits")
    data = images.train if split == "train" else images.test
    available = 2 * min(np.sum(data.label == digit) for digit in digits)
    count = min(n, int(available)) // 2
    images, labels = training.draw_images(data, digits, count, flatten, np.random.default_rng(0))
    again = np.arange(n) % len(images)
    return images[again], labels[again]


def shortest(functions, rounds=3):
    """The shortest time of each of some functions that run in turn, in seconds, {name: seconds}.

    Each runs once before, to compile what it needs.
    """
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _, (name, function) in itertools.product(range(rounds), functions.items()):
        start = time.perf_counter()
        function()
        times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def nt_batch(layers, x1, x2, size):
    """nt.batch of the network of stax `layers`, warm once it was called.

    A function without arguments.
    """
    import jax

    from ntk.oracle import import_neural_tangents

    nt, stax = import_neural_tangents()
    kernel_fn = nt.batch(stax.serial(*layers)[2], batch_size=size, device_count=0)

    def evaluate():
        with jax.enable_x64(True):
            return np.array(kernel_fn(x1, x2, "ntk"))

    return evaluate


# ---- the parts: each returns (heading, what is under it, the table's head, the table's rows) ----


def convolutional():
    """Every engine at 28 x 28 and depth 96, from images to the matrix, the images' own passes included."""
    from ntk.oracle import convolutional_layers

    images, layers = draw(64)[0], convolutional_layers(CONVOLUTIONAL_DEPTH)
    functions, pairs = {}, {}
    for size in (2, 4):
        name = (f"neural-tangents, nt.batch of {size}", "float64")
        functions[name], pairs[name] = (
            nt_batch(layers, images[:size], images[-size:], size),
            size**2,
        )
    for name in itertools.product(("numba", "jax"), ("float64", "float32")):
        n1, n2 = (32, 64) if name[0] == "numba" or has_accelerator() else (4, 4)
        arguments = dict(depth=CONVOLUTIONAL_DEPTH, engine=name[0], precision=name[1])
        functions[name] = lambda x1=images[:n1], x2=images[-n2:], a=arguments: convolutional_ntk(
            x1, x2, **a
        )
        pairs[name] = n1 * n2
    found = {name: seconds / pairs[name] for name, seconds in shortest(functions).items()}
    reference = min(seconds for (engine, _), seconds in found.items() if "nt.batch" in engine)
    rows = [
        (*name, pairs[name], f"{1e3 * s:.2f}", f"{reference / s:.1f}") for name, s in found.items()
    ]
    head = ("engine", "precision", "pairs", "ms a pair", "times the faster nt.batch")
    return "Convolutional NTK, 28x28, depth 96", "", head, rows


def fully_connected():
    """The Gram matrix of n images at depth 83."""
    from ntk.oracle import fully_connected_layers

    rows = []
    for n in (512, 4096):
        x = draw(n, (8, 9), flatten=True)[0]
        functions = {
            e: lambda x=x, e=e: fully_connected_ntk(x, depth=DENSE_DEPTH, engine=e)
            for e in ("numba", "jax")
        }
        if n == 512:
            functions["neural-tangents, nt.batch of 128"] = nt_batch(
                fully_connected_layers(DENSE_DEPTH), x, None, 128
            )
        found = shortest(functions, rounds=3 if n == 512 else 1)
        if n == 512:
            reference = found["neural-tangents, nt.batch of 128"] / n**2
        rows += [
            (n, e, f"{s:.3f}", f"{1e9 * s / n**2:.0f}", f"{reference * n**2 / s:.1f}")
            for e, s in found.items()
        ]
    note = "The last column compares times an entry, at both n with nt.batch at n = 512."
    head = ("n", "engine", "seconds", "ns an entry", "times nt.batch")
    return f"Fully-connected NTK, Gram matrix, depth {DENSE_DEPTH}", note, head, rows


def sizes():
    """Seconds a pair of a whole trial, training and test matrix, from its own passes and some blocks."""
    rows = []
    for n in (16, 64, 256):
        images = draw(n + 256)[0]
        start = time.perf_counter()
        pairs = ConvolutionalPairs(images, depth=CONVOLUTIONAL_DEPTH)
        own = time.perf_counter() - start
        count = n * (n - 1) // 2 + n * 256
        i, j = np.tril_indices(n, -1)
        m = 2 * pairs.block
        i, j = np.resize(i, m), np.resize(j, m)
        block = shortest({"": lambda i=i, j=j, pairs=pairs: pairs.pairs(i, j)})[""] / m
        rows.append((n, count, own, block, own / count + block))
    note = f"Engine {'jax' if has_accelerator() else 'numba'}, float64, with 256 test images."
    head = (
        "n",
        "pairs of a trial",
        "own passes, s",
        "ms a pair beside them",
        "ms a pair of all",
        "against n = 256",
    )
    table = []
    for n, count, own, block, whole in rows:
        each = [f"{1e3 * seconds:.2f}" for seconds in (block, whole)]
        table.append((n, count, f"{own:.1f}", *each, f"{whole / rows[-1][4]:.3f}"))
    return "Convolutional NTK, time a pair against n", note, head, table


def in_process(code, **environment):
    """The number that code prints in a fresh interpreter, in which `benchmark` is this module."""
    prelude = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]}\n"
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    command = [sys.executable, "-c", f"{prelude}import benchmark\n{code}"]
    result = subprocess.run(command, env=variables, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr[-2000:])
    return float(result.stdout.split()[-1])


def compilation_seconds(engine, precision):
    """The first call of a process less the second."""
    x, times = draw(4)[0], []
    for _ in range(2):
        start = time.perf_counter()
        convolutional_ntk(x, depth=6, engine=engine, precision=precision)
        times.append(time.perf_counter() - start)
    return times[0] - times[1]


def start():
    """What compiling takes: with an empty cache, and with what the first process left there."""
    rows = []
    for engine, precision in itertools.product(("numba", "jax"), ("float64", "float32")):
        with tempfile.TemporaryDirectory() as cache:
            code = f"print(benchmark.compilation_seconds({engine!r}, {precision!r}))"
            times = [
                in_process(code, NUMBA_CACHE_DIR=cache)
                for _ in range(2 if engine == "numba" else 1)
            ]
        # JAX keeps nothing between processes.
        first, again = (f"{seconds:.1f}" for seconds in [*times, times[0]][:2])
        rows.append((engine, precision, first, again))
    note = "The first call of a process less its second, of the convolutional NTK at depth 6."
    return "Compilation", note, ("engine", "precision", "first process, s", "next process, s"), rows


def pair_seconds(engine, threads=None):
    """Seconds a pair of the convolutional NTK in float64, without the images' own passes."""
    if threads:
        import numba

        numba.set_num_threads(threads)
    pairs = ConvolutionalPairs(draw(32)[0], depth=CONVOLUTIONAL_DEPTH, engine=engine)
    count = max(8, 2 * pairs.block)
    i, j = (np.resize(index, count) for index in np.tril_indices(32, -1))
    return shortest({"": lambda: pairs.pairs(i, j)}, rounds=2)[""] / count


def devices():
    """The same pairs on one and on two cores.

    Threads of the Numba engine, CPU devices of the JAX engine.
    """
    rows = []
    for engine, count in itertools.product(("numba, threads", "jax, CPU devices"), (1, 2)):
        name = engine.split(",")[0]
        threads = count if name == "numba" else None
        variables = dict(JAX_NUM_CPU_DEVICES=count, JAX_PLATFORMS="cpu")
        seconds = in_process(f"print(benchmark.pair_seconds({name!r}, {threads}))", **variables)
        rows.append((engine, count, f"{1e3 * seconds:.2f}"))
    note = "JAX spreads a single CPU device over all cores."
    return "Convolutional NTK on one and two cores", note, ("engine", "number", "ms a pair"), rows


def float32():
    """What float32 costs in accuracy: kernel error, and change of every quantity, on one trial."""
    n = 32
    (train, train_label), (test, test_label) = draw(n), draw(n, split="test")
    first = np.r_[:8, n // 2 : n // 2 + 8]  # of each class
    found, kernels = {}, {}
    for precision in ("float64", "float32"):
        kernel, cross = (
            convolutional_ntk(*x, precision=precision) for x in ([train], [test, train])
        )
        kernels[precision] = np.concatenate([kernel, cross])
        network = training.make_networks()["convolutional"]
        trial = Trial(network, network.classes, n, 0)
        reference = kernel[np.ix_(first, first)]
        record = training.TrialKernels(
            trial=trial,
            depth=CONVOLUTIONAL_DEPTH,
            separability=training.separability(train),
            train=kernel,
            test=cross,
            train_label=train_label,
            test_label=test_label,
            scale=training.convolutional_scale(CONVOLUTIONAL_DEPTH, reference),
        )
        found[precision] = training.trial_quantities(record, training.trial_patterns(0, trial))
    rows, unchanged = [("kernel entry", relative(kernels["float32"], kernels["float64"]), "")], []
    for name in found["float64"].data_vars:
        values, others = found["float64"][name].values, found["float32"][name].values
        values, others = values[np.isfinite(values)], others[np.isfinite(values)]
        if np.array_equal(values, others, equal_nan=True):
            unchanged.append(name)
        else:
            rows.append(
                (name, relative(others, values), relative(np.median(others), np.median(values)))
            )
    note = (
        f"Largest relative change from float64 on one trial of n = {n}, {n} test images, and that of the median. "
        f"Not changed at all: {', '.join(unchanged)}."
    )
    return (
        "float32 in place of float64",
        note,
        ("quantity", "largest change", "of the median"),
        rows,
    )


def relative(found, expected):
    """Largest relative difference, as text."""
    return f"{np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1e-300)):.1e}"


def plan_of_a_gpu():
    """What XLA makes of the jax engine on an H200."""
    heading = "The jax engine on an H200: compiled, not run"
    if not gpu_plan.available():
        return heading, "Skipped: JAX's CUDA plugin is not installed, see gpu_plan.py.", (), []
    names = [
        ("convolutional", "float64"),
        ("convolutional", "float32"),
        ("neural-tangents", "float64"),
    ]
    plans = {name: gpu_plan.in_process(*name) for name in names}
    reference, rows = plans[names[-1]]["bytes"], []
    for (program, precision), plan in plans.items():
        name, kernel = "neural-tangents, 4 x 4 pairs", ("", "", "")
        if program == "convolutional":
            name = f"engine jax, {gpu_plan.pairs} pairs"
            kernel = [
                plan["large_kernels"],
                *(f"{plan[key]:.0f}" for key in ("instructions", "divisions", "roots")),
            ]
            kernel = kernel[0], kernel[1], f"{kernel[2]}, {kernel[3]}"
        megabytes, milliseconds = f"{plan['memory'] / 1e6:.1f}", f"{1e3 * plan['seconds']:.3f}"
        ratio = f"{reference / plan['bytes']:.1f}"
        gigabytes = f"{plan['bytes'] / 1e9:.3f}"
        rows.append(
            (name, precision, gigabytes, plan["launches"], *kernel, megabytes, milliseconds, ratio)
        )
    dense = gpu_plan.in_process("fully-connected")
    each = [
        f"{dense[key] / gpu_plan.layers_of_a_kernel:.0f}"
        for key in ("instructions", "divisions", "roots")
    ]
    note = (
        "Compiled by XLA for an H200, not run: the bytes that kernels read and write, and what moving them takes at "
        f"{gpu_plan.bandwidth / 1e12} TB/s at least. The last column is a ratio of plans, not of times. Instructions, "
        "divisions and roots are those of the largest kernel, for an entry of the state.\n\n"
        f"Fully-connected engine, {gpu_plan.rows} x {gpu_plan.columns} entries and {gpu_plan.dense_depth} layers: "
        f"{dense['bytes']:.0f} bytes an entry, {dense['launches']} launches a block; {each[0]} instructions, {each[1]} "
        f"divisions and {each[2]} root an entry and layer."
    )
    head = ("program", "precision", "GB a pair", "launches a block", "large kernels", "instructions",
            "divisions, roots", "MB of memory a pair", "at least, ms a pair", "neural-tangents' over it")  # fmt: skip
    return heading, note, head, rows


def gpu():
    """The jax engine on the accelerator that JAX finds, beside its plan for an H200."""
    heading = "The jax engine on an accelerator"
    if not has_accelerator():
        return heading, "Skipped: JAX finds no GPU or TPU.", (), []
    rows = []
    for precision in ("float64", "float32"):
        pairs = ConvolutionalPairs(
            draw(64)[0], depth=CONVOLUTIONAL_DEPTH, engine="jax", precision=precision
        )
        i, j = (np.resize(index, 4 * pairs.block) for index in np.tril_indices(64, -1))
        seconds = shortest({"": lambda i=i, j=j, pairs=pairs: pairs.pairs(i, j)})[""] / len(i)
        planned = (
            gpu_plan.in_process("convolutional", precision)["seconds"]
            if gpu_plan.available()
            else np.nan
        )
        rows.append((precision, pairs.block, f"{1e3 * seconds:.3f}", f"{1e3 * planned:.3f}"))
    head = ("precision", "pairs of a block", "ms a pair", "at least, by the plan for an H200")
    return heading, "Convolutional NTK, depth 96.", head, rows


PARTS = {
    "convolutional": convolutional,
    "fully-connected": fully_connected,
    "sizes": sizes,
    "start": start,
    "devices": devices,
    "float32": float32,
    "gpu-plan": plan_of_a_gpu,
    "gpu": gpu,
}


# ---- the report ----


def machine():
    """The accelerators, or the processor with what the engines make use of."""
    if has_accelerator():
        import jax

        return f"{jax.device_count()} x {jax.local_devices()[0].device_kind}"
    import llvmlite.binding

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = dict(
        reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line])
    )
    flags = [flag for flag in FEATURES.split() if flag in facts.get("flags", "").split()]
    name = f"{facts.get('model name', 'CPU')} ({llvmlite.binding.get_host_cpu_name()}), {os.cpu_count()} cores"
    return ", ".join([name, " ".join(flags) or "features unknown"])


def write(part, seconds, heading, note, head, rows):
    """Put a part into the report, in its place.

    One that was skipped leaves what an earlier run found.
    """
    packages = ("jax", "numba", "numpy", "neural-tangents")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    lines = [f"<!-- {part} -->", f"## {heading}", ""]
    lines += [
        f"`--parts {part}`, {time.strftime('%Y-%m-%d')}, {seconds:.0f} s; {machine()}; {versions}.",
        "",
    ]
    lines += [note, ""] if note else []
    if rows:
        lines += [
            "| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)
        ]
    section = "\n".join(lines).rstrip() + "\n"
    print(f"\n{section}", flush=True)
    text = REPORT.read_text() if REPORT.exists() else ""
    sections = {
        s.split()[1]: s.rstrip() + "\n" for s in re.split(r"^(?=<!-- )", text, flags=re.M)[1:]
    }
    if rows or part not in sections:
        sections[part] = section
    title = "# What the kernels take\n\nWritten by `tests/benchmark.py`, part by part; nothing here is typed by hand.\n"
    REPORT.write_text("\n".join([title, *(sections[name] for name in PARTS if name in sections)]))


def main():
    """Run the parts asked for, and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all"
    )
    for part in parser.parse_args().parts:
        begin = time.perf_counter()
        found = PARTS[part]()
        write(part, time.perf_counter() - begin, *found)
    print(f"wrote {REPORT}")


if __name__ == "__main__":
    main()
