"""Benchmark of the kernels, by hand: every engine and precision against neural-tangents, in one run on one machine.

    python tests/benchmark.py                     # all parts: about ten minutes on two cores; writes benchmark.json
    python tests/benchmark.py --parts convolutional fully-connected

Run it on an idle machine. Ratios within one run are the claim; times depend on the machine and on what else it does.
Images are MNIST where MNIST_DIR is set, else scikit-learn's digits; speed does not depend on them.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import kernels

import training

DEPTH = training.convolutional_depth


def draw_images(n, flatten=False, selection=(1, 0)):
    """N training images, as trials draw them."""
    data = training.load_data("mnist" if os.environ.get("MNIST_DIR") else "digits")
    return training.process_data(data["train"], selection, n // 2, flatten, np.random.default_rng(0))[0]


def seconds(function, repeats=3):
    """The shortest of several runs of function(), after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def pairs_per_call(engine):
    """Pairs to time an engine on: enough for several of its blocks."""
    return 1024 if engine == "numba" else 2048 if training.has_accelerator() else 16


def time_convolutional(engine, precision="float64", repeats=3):
    """Seconds per pair of n1 x n2 distinct images, the images' own passes included, as in a trial of n = 16."""
    n2 = 32 if pairs_per_call(engine) > 32 else 4
    n1 = pairs_per_call(engine) // n2
    images = draw_images(128)
    x1, x2 = images[:n1], images[-n2:]
    return seconds(lambda: training.convolutional_ntk(x1, x2, engine=engine, precision=precision), repeats) / (n1 * n2)


def oracle(layers, x1, x2, batch_size):
    """nt.batch's kernel as a function without arguments that keeps what it compiled."""
    nt, stax = kernels.import_neural_tangents()
    kernel_fn = nt.batch(stax.serial(*layers)[2], batch_size=batch_size, device_count=0)

    def evaluate():
        with kernels.double_precision():
            return np.array(kernel_fn(x1, x2, "ntk"))

    return evaluate


def benchmark_convolutional():
    """Rows (engine, precision, seconds per pair) at 28 x 28 and depth 96."""
    x = draw_images(8)
    layers = kernels.oracle_convolutional(DEPTH)
    rows = []
    for batch in (2, 4):
        best = seconds(oracle(layers, x[:4], x[4:], batch), repeats=2) / 16
        rows.append((f"neural-tangents, nt.batch of {batch}", "float64", best))
    reference = min(best for _, _, best in rows)
    for engine, precision in itertools.product(("numba", "jax"), ("float64", "float32")):
        rows.append((engine, precision, time_convolutional(engine, precision)))
    print_table(
        "Convolutional NTK, 28x28, depth 96",
        ["engine", "precision", "ms per pair", "times nt.batch"],
        [(name, precision, f"{1e3 * t:.2f}", f"{reference / t:.1f}") for name, precision, t in rows],
    )
    return [dict(engine=n, precision=p, seconds_per_pair=t, ratio=reference / t) for n, p, t in rows]


def benchmark_fully_connected():
    """The Gram matrix at n = 512, depth 83."""
    x = draw_images(512 if os.environ.get("MNIST_DIR") else 128, flatten=True, selection=(8, 9))
    _, stax = kernels.import_neural_tangents()
    hidden, last = (stax.Dense(w, W_std=np.sqrt(kernels.erf_scale), b_std=None) for w in (512, 1))
    layers = [hidden, stax.Erf()] * 83 + [last]
    rows = [("neural-tangents", seconds(oracle(layers, x, None, len(x) // 4), repeats=2))]
    for engine in ("numba", "jax"):
        compute = lambda engine=engine: training.fully_connected_ntk(x, depth=83, engine=engine)  # noqa: E731
        rows.append((engine.replace("numba", "NumPy"), seconds(compute)))
    print_table(
        f"Fully-connected NTK, Gram matrix of {len(x)} images, depth 83",
        ["engine", "seconds", "times nt.batch"],
        [(name, f"{t:.3f}", f"{rows[0][1] / t:.1f}") for name, t in rows],
    )
    return [dict(engine=n, images=len(x), seconds=t, ratio=rows[0][1] / t) for n, t in rows]


def benchmark_sizes():
    """Seconds per pair of a whole trial, training and test matrix, from its own passes and a few blocks."""
    engine = training.choose_engine("auto")
    rows = []
    for n in (16, 32, 64, 128, 256):
        data = draw_images(256)
        images = data[np.arange(n + 256) % len(data)]
        i, j = np.tril_indices(n)
        test = np.indices((n, 256)).reshape(2, -1)
        pairs = np.concatenate([[i, j], [test[0], test[1] + n]], axis=1)
        start = time.perf_counter()
        blocks = kernels.convolutional_pairs(images, pairs, DEPTH, engine, "float64")
        next(blocks)
        own, times = time.perf_counter() - start, []
        for _ in range(4):  # the shortest of four, because what disturbs comes in bursts
            start = time.perf_counter()
            done = sum(len(block) for block, _ in itertools.islice(blocks, 2))
            times.append((time.perf_counter() - start) / done)
        whole = own + min(times) * (pairs.shape[1] - n)
        rows.append(dict(n=n, pairs=pairs.shape[1], own_seconds=own, seconds_per_pair=whole / pairs.shape[1]))
    base = rows[-1]["seconds_per_pair"]
    print_table(
        f"Time per pair against n, engine {engine}, float64, 256 test images",
        ["n", "pairs of a trial", "ms per pair", "against n = 256"],
        [
            (r["n"], r["pairs"], f"{1e3 * r['seconds_per_pair']:.2f}", f"{r['seconds_per_pair'] / base:.3f}")
            for r in rows
        ],
    )
    return rows


def in_process(code, **environment):
    """Run code in a fresh interpreter; returns the number it prints and its peak memory in MiB."""
    prelude = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]}\n"
    prelude += "import benchmark, itertools, kernels, numpy as np, os, time, training\n"
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    code = prelude + code + "\nprint(benchmark.peak_memory())"
    result = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    number, memory = result.stdout.split()[-2:]
    return float(number), float(memory)


def peak_memory():
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's would start from the parent's
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def benchmark_start():
    """Compilation: the first call with an empty cache, less the second, and from the cache."""
    code = """
x = benchmark.draw_images(4)
times = []
for _ in range(2):
    start = time.perf_counter()
    training.convolutional_ntk(x, depth=3, engine="{engine}", precision="{precision}")
    times.append(time.perf_counter() - start)
print(times[0] - times[1])
"""
    rows = []
    for engine, precision in itertools.product(("numba", "jax"), ("float64", "float32")):
        with tempfile.TemporaryDirectory() as cache:
            call = code.format(engine=engine, precision=precision)
            first, _ = in_process(call, NUMBA_CACHE_DIR=cache)
            again, _ = in_process(call, NUMBA_CACHE_DIR=cache)
        rows.append(dict(engine=engine, precision=precision, first_seconds=first, cached_seconds=again))
    print_table(
        "Compilation",
        ["engine", "precision", "first run, s", "next run, s"],
        [(r["engine"], r["precision"], f"{r['first_seconds']:.1f}", f"{r['cached_seconds']:.1f}") for r in rows],
    )
    return rows


def benchmark_memory():
    """Peak memory of a process at n = 512 and 256 test images: all own passes and a few blocks of pairs."""
    convolutional = """
data = benchmark.draw_images(128)
images = data[np.arange(768) % len(data)]
i, j = np.tril_indices(512)
test = np.indices((512, 256)).reshape(2, -1)
pairs = np.concatenate([[i, j], [test[0], test[1] + 512]], axis=1)
blocks = kernels.convolutional_pairs(images, pairs, benchmark.DEPTH, "auto", "float64")
print(sum(len(block) for block, _ in itertools.islice(blocks, 4)))
"""
    fully_connected = """
data = benchmark.draw_images(128, flatten=True)
images = data[np.arange(768) % len(data)]
training.fully_connected_ntk(images[:512] + 1e-3 * np.random.default_rng(0).normal(size=(512, 784)), depth=83)
print(training.fully_connected_ntk(images[512:], images[:512], depth=83).size)
"""
    programs = (("fully-connected", fully_connected), ("convolutional", convolutional))
    rows = [dict(network=network, peak_MiB=in_process(code)[1]) for network, code in programs]
    print_table("Peak memory at n = 512", ["network", "MiB"], [(r["network"], f"{r['peak_MiB']:.0f}") for r in rows])
    return rows


def benchmark_devices():
    """The same pairs on one and on two cores: threads of the Numba engine, CPU devices of the JAX engine."""
    numba_code = "import numba; numba.set_num_threads({count}); print(benchmark.time_convolutional('numba', repeats=2))"
    jax_code = "print(benchmark.time_convolutional('jax', repeats=2))"
    rows = []
    for count in (1, 2):
        rows.append(dict(engine="numba", devices=count, s_per_pair=in_process(numba_code.format(count=count))[0]))
        if not training.has_accelerator():
            value, _ = in_process(jax_code, JAX_NUM_CPU_DEVICES=count, JAX_PLATFORMS="cpu")
            rows.append(dict(engine="jax on CPU devices", devices=count, s_per_pair=value))
    rows.sort(key=lambda row: (row["engine"], row["devices"]))
    print_table(
        "One and two devices",
        ["engine", "devices", "ms per pair"],
        [(r["engine"], r["devices"], f"{1e3 * r['s_per_pair']:.2f}") for r in rows],
    )
    return rows


def benchmark_float32():
    """What float32 costs in accuracy: kernel error, and change of every quantity, on one trial of n = 64."""
    n, tests = 64, 32
    data = training.load_data("mnist" if os.environ.get("MNIST_DIR") else "digits")
    rng = np.random.default_rng(0)
    train, train_label = training.process_data(data["train"], (1, 0), n // 2, False, rng)
    test, test_label = training.process_data(data["test"], (1, 0), tests // 2, False, rng)
    found, kernels = {}, {}
    for precision in ("float64", "float32"):
        kernel = training.convolutional_ntk(train, precision=precision)
        cross = training.convolutional_ntk(test, train, precision=precision)
        kernels[precision] = np.concatenate([kernel, cross])
        inside = kernel[:16, :16]
        k_thresh = np.abs(inside - np.diag(np.diag(inside))).max()
        trial = {
            "kernel_train": kernel, "kernel_test": cross, "train_label": train_label, "test_label": test_label,
            "kernel_test_normalized": np.clip(cross / k_thresh, -1, 1),
        }  # fmt: skip
        thresholds = {"": training.class_thresholds(inside, training.percentile)}
        patterns = {"": [training.sparsity_pattern(n, np.random.default_rng(i)) for i in range(3)]}
        found[precision] = training.trial_quantities("convolutional", trial, patterns, thresholds)
    rows = [("largest relative kernel error", relative(kernels["float32"], kernels["float64"]), "")]
    for name, values in found["float64"].items():
        values, others = np.array(values, float), np.array(found["float32"][name], float)
        median = relative(np.median(others), np.median(values))
        rows.append((name, relative(others, values), median))
    print_table(
        "float32 against float64, one convolutional trial, n = 64, 32 test images",
        ["quantity", "largest relative change", "of its median"],
        [(name, f"{largest:.1e}", f"{median:.1e}" if median != "" else "") for name, largest, median in rows],
    )
    return [dict(quantity=name, largest=largest, median=median) for name, largest, median in rows]


def relative(found, expected):
    """Largest relative difference."""
    return float(np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1e-300)))


def print_table(title, heading, rows):
    """A Markdown table."""
    print(f"\n{title}\n")
    for row in (heading, ["---"] * len(heading), *rows):
        print("| " + " | ".join(map(str, row)) + " |")
    sys.stdout.flush()


PARTS = {
    "convolutional": benchmark_convolutional,
    "fully-connected": benchmark_fully_connected,
    "sizes": benchmark_sizes,
    "start": benchmark_start,
    "memory": benchmark_memory,
    "devices": benchmark_devices,
    "float32": benchmark_float32,
}


def main():
    """Run the parts asked for, and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"), help="default: benchmark.json")
    args = parser.parse_args()
    packages = ("jax", "jaxlib", "numba", "numpy", "neural-tangents")
    versions = {name: importlib.metadata.version(name) for name in packages}
    record = {"device": training.describe_device(), "date": time.strftime("%Y-%m-%d"), "versions": versions}
    print(f"{record['device']}; {record['date']}; " + ", ".join(f"{n} {v}" for n, v in versions.items()))
    for part in args.parts:
        record[part] = PARTS[part]()
        args.output.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwrote {args.output}")


if __name__ == "__main__":
    main()
