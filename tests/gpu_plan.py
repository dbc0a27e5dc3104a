"""What XLA makes of the jax engine on an NVIDIA H200, compiled for one without having one: nothing
is run.

Needs JAX's CUDA plugin, but neither a GPU nor a driver:

    pip install -r requirements-gpu.txt  # or, to what is there: jax-cuda13-plugin jax-cuda13-pjrt
    nvidia-cuda-nvcc python tests/benchmark.py --parts gpu-plan

A plan counts the kernels of a block and the bytes that each reads and writes, operands and results
in full: caches can only make reads of neighbours cheaper, not the rest. That bounds the time from
below by memory alone.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

H200 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  shared_memory_per_block: 49152  shared_memory_per_core: 233472
  threads_per_core_limit: 2048  core_count: 132  fpus_per_core: 128  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535  block_dim_limit_z: 65535  memory_bandwidth: 4800000000000  l2_cache_size: 62914560
  clock_rate_ghz: 1.98  device_memory_size: 150000000000  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H200"
"""
bandwidth = 4.3e12  # bytes a second that a copy reaches there, read and written
widths = {
    "f64": 8,
    "f32": 4,
    "c128": 16,
    "c64": 8,
    "s64": 8,
    "s32": 4,
    "u32": 4,
    "pred": 1,
    "u8": 1,
}
KERNELS = (
    "fusion",
    "copy",
    "reduce-window",
    "reduce",
    "gather",
    "transpose",
    "convolution",
    "custom-call",
)

pairs = 63  # of images, in a plan of the convolutional engine
# Of a block of the fully-connected engine, and its layers.
rows, columns, dense_depth = (
    2048,
    8192,
    83,
)
layers_of_a_kernel = 8  # in its large kernels


def available():
    """Whether JAX's CUDA plugin is installed."""
    return any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))


def in_process(program, precision="float64"):
    """The plan of "convolutional", "fully-connected" or "neural-tangents", made by a process of its own."""
    with tempfile.TemporaryDirectory() as dump:
        environment = os.environ | {
            "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # there is no driver here
            "CUDA_VISIBLE_DEVICES": "-1",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_dump_to={dump} --xla_dump_hlo_as_text",
        }
        command = [sys.executable, __file__, program, precision, dump]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(result.stderr[-2000:])
        return json.loads(result.stdout.splitlines()[-1])


# ---- compile ----


def compiled(program, precision):
    """(what XLA compiled, how often each of its loops runs, pairs or entries of a block)."""
    import jax
    from jax.experimental import topologies

    described = topologies.get_topology_desc(
        "h200", platform="cuda", topology="1x1x1", target_config=H200
    )
    devices = list(described.devices)
    jax.devices = lambda *_: devices
    everywhere = jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.array(devices), ("devices",)), jax.P()
    )
    array = lambda *shape: jax.ShapeDtypeStruct(shape, "float64", sharding=everywhere)  # noqa: E731
    if program == "neural-tangents":
        from ntk.oracle import convolutional_layers, import_neural_tangents

        kernel_fn = import_neural_tangents()[1].serial(*convolutional_layers(96))[2]
        with jax.enable_x64(True):
            images = array(4, 28, 28, 1)
            return (
                jax.jit(lambda x1, x2: kernel_fn(x1, x2, "ntk")).lower(images, images).compile(),
                [],
                16,
            )
    from ntk import jax_engine

    if program == "convolutional":
        return jax_engine.cone_program(28, 28, precision, False, pairs, False), [16] * 3, pairs
    at_once = layers_of_a_kernel
    with jax.enable_x64(True):
        depth = jax.ShapeDtypeStruct((), "int64", sharding=everywhere)
        tables = [array(128, count) for count in (rows, columns)]
        lowered = jax_engine.dense_program(at_once).lower(array(rows, columns), *tables, depth)
        return lowered.compile(), [dense_depth % at_once, dense_depth // at_once], rows * columns


# ---- read what was compiled ----


def size(shape):
    """Bytes of an HLO shape, tuples included."""
    found = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(
        widths.get(t, 0) * int(np.prod([int(n) for n in dims.split(",") if n])) for t, dims in found
    )


def computations(text):
    """{name.

    (whether it is the entry, [(result, shape, operation, operands and attributes)])} of an HLO
    module.
    """
    found = {}
    for entry, name, body in re.findall(
        r"^(ENTRY )?%?([\w.\-]+) \(.*?\) -> .*?\{\n(.*?)^\}", text, re.S | re.M
    ):
        pattern = r"^\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$"
        found[name] = (bool(entry), re.findall(pattern, body, re.M))
    return found


def kernels(instructions, others):
    """[(name, bytes read, bytes written)] of the kernels of one computation.

    A fusion that ends in dynamic-update-slice writes the slice alone, in place, and does not read
    what is around it.
    """
    shapes, found = {}, []
    for name, shape, operation, rest in instructions:
        shapes[name] = shape
        if operation not in KERNELS:
            continue
        operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
        read, written = [size(shapes.get(operand, "")) for operand in operands], size(shape)
        called = re.search(r"calls=%?([\w.\-]+)", rest)
        inside = others[called[1]][1] if called else []
        if inside and inside[-1][2] == "dynamic-update-slice":
            target, update = re.findall(r"%([\w.\-]+)", inside[-1][3])[:2]
            parameters = {n: int(r.split(")")[0]) for n, _, o, r in inside if o == "parameter"}
            read[parameters[target]] = 0
            written = size(next(s for n, s, _, _ in inside if n == update))
        found.append((name, sum(read), written))
    return found


def instructions(dump, kernel, bytes_an_entry):
    """[all, divisions, roots] an entry, of a kernel's PTX.

    The stores say how many entries a thread computes.
    """
    entry = kernel.replace(".", "_").replace("-", "_")
    for path in Path(dump).glob("*.ptx"):
        match = re.search(rf"\.entry {entry}\(.*?^\{{(.*?)^\}}", path.read_text(), re.S | re.M)
        if match:
            code = re.findall(r"^\s*(?:@!?%p\d+ )?([a-z][\w.]*)", match[1], re.M)
            stores = [re.fullmatch(r"st\.global(?:\.v(\d))?\.[a-z](\d+)", name) for name in code]
            stored = sum(int(s[1] or 1) * int(s[2]) // 8 for s in stores if s)
            patterns = ("", r"div\.\w*\.?f|rcp\.", r"r?sqrt\.")
            return [
                sum(bool(re.match(p, name)) for name in code) * bytes_an_entry / stored
                for p in patterns
            ]
    return [None] * 3


def plan(program, precision, dump):
    """A dict of what is compiled.

    Kernels by loop, bytes and seconds a pair (or entry), launches a block.
    """
    executable, repetitions, units = compiled(program, precision)
    parts = computations(executable.as_text())
    entry = next(instructions for is_entry, instructions in parts.values() if is_entry)
    loops = [
        re.search(r"body=%?([\w.\-]+)", rest)[1]
        for _, _, operation, rest in entry
        if operation == "while"
    ]
    groups = [(kernels(entry, parts), 1)]
    groups += [
        (kernels(parts[name][1], parts), times)
        for name, times in zip(loops, repetitions, strict=True)
    ]
    moved = sum(times * (read + written) for group, times in groups for _, read, written in group)
    name, *_ = max(
        (kernel for group, _ in groups[1:] or groups for kernel in group), key=lambda k: k[1] + k[2]
    )
    entry_bytes = 8 if precision == "float32" else 16
    every, divisions, roots = instructions(dump, name, entry_bytes)
    # A loop's large kernels: those that move more than a tenth of what the whole loop does.
    shares = [
        [(read + written) / sum(r + w for _, r, w in group) for _, read, written in group]
        for group, _ in groups
    ]
    large = sum(
        times * sum(s > 0.1 for s in part)
        for part, (_, times) in list(zip(shares, groups, strict=True))[1:]
    )
    memory = executable.memory_analysis()
    return {
        "bytes": moved / units, "seconds": moved / units / bandwidth,
        "launches": sum(times * len(group) for group, times in groups),
        "large_kernels": large, "instructions": every, "divisions": divisions, "roots": roots,
        "memory": (memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes) / units,
    }  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    print(json.dumps(plan(*sys.argv[1:])))
