"""Runs that are killed, resumed, run out of disk, meet each other, or spread over processes lose nothing."""

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import kernels
import numpy as np
import pytest
from conftest import ROOT, complaint, free_port, start

import training

TINY = ("--dataset", "digits", "--data-sizes", "4", "16", "--trials", "2", "1", "--test-size", "4")
QUICK = (*TINY, "--networks", "fully-connected")


def wait_until(condition, seconds=60):
    """Poll until condition() is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def handles_signals(pid):
    """Whether the process catches SIGTERM yet; the first tenths of a second are the interpreter's."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        time.sleep(0.5)
        return True
    return int(status.read_text().partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1


def contents(folder):
    """The bytes of everything that has its final name and does not hold times: name -> bytes."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".npy", ".npz")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, script):
    """Folder of a tiny run of both networks that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = script(*TINY, "--output", folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def copy(undisturbed, tmp_path):
    """A copy of the undisturbed run."""
    return shutil.copytree(undisturbed, tmp_path / "copy")


# ---- killed ----


def test_kills_at_random_moments(undisturbed, tmp_path):
    """20 runs end by a random signal at a random moment; what has a final name is always right, and so is the end."""
    expected = contents(undisturbed)
    rng = random.Random(20)
    kills, finished = 0, 0
    while kills < 20:
        process = start(*TINY, "--output", tmp_path / "output")
        wait_until(lambda pid=process.pid: handles_signals(pid))
        number = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 6))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        found = contents(tmp_path / "output") if (tmp_path / "output").exists() else {}
        assert {name: found[name] == expected[name] for name in found} == dict.fromkeys(found, True)
        if process.returncode == 0:
            assert found.keys() == expected.keys()
            shutil.rmtree(tmp_path / "output")
            finished += 1
            continue
        kills += 1
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 128 + number
            assert errors.count("\n") == 1 and "to go on: python" in errors and "--test-size 4" in errors
    process = start(*TINY, "--output", tmp_path / "output")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert contents(tmp_path / "output") == expected
    assert not list((tmp_path / "output").glob("*.partial"))
    print(f"{finished} runs had finished before their signal")


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_one_line(tmp_path, number, code):
    process = start(*TINY[:-1], "100", "--output", tmp_path, "--networks", "convolutional")
    wait_until(lambda: list(tmp_path.glob("*.partial")))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    name = signal.Signals(number).name
    assert errors == f"training.py: stopped by {name}; to go on: python {' '.join(process.args[1:])}\n"


def test_a_rerun_computes_only_what_is_missing(copy, undisturbed, script):
    """An unfinished matrix keeps what it has: a number planted there comes through, and the NaN beside it goes."""
    path = copy / "digits-convolutional_seed0_data16_trial0_kernel_test.npy"
    partial = path.with_name(path.name + ".partial")
    path.rename(partial)
    expected = np.load(partial)
    kernel = np.lib.format.open_memmap(partial, mode="r+")
    kernel[0, 0], kernel[2, 3:] = 12345, np.nan
    del kernel
    before = {p: p.stat().st_mtime_ns for p in copy.glob("*kernel_train.npy")}
    result = script(*TINY, "--output", copy)
    assert result.returncode == 0, result.stderr
    expected[0, 0] = 12345
    assert np.array_equal(np.load(path), expected)
    assert path.read_bytes().splitlines()[-1] == (undisturbed / path.name).read_bytes().splitlines()[-1]
    assert {p: p.stat().st_mtime_ns for p in copy.glob("*kernel_train.npy")} == before


# ---- damaged, stale and foreign files ----


def test_truncated_files(copy, undisturbed, script):
    """Each kind of file, cut at random offsets, is named and made again, to the same bytes; the cut one is kept."""
    expected, rng = contents(undisturbed), random.Random(4)
    arrays = ("kernel_train", "kernel_test", "kernel_test_normalized", "train_label", "test_label")
    for attempt in range(4):
        stem = copy / f"digits-fully-connected_seed0_data{4 if attempt % 2 else 16}_trial0_"
        cut = [Path(f"{stem}{name}.npy") for name in arrays]
        for path in [*cut, copy / "digits-fully-connected_results.npz", copy / "run.json", copy / "run.lock"]:
            path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
        if attempt >= 2:  # the matrices unfinished instead
            cut[:2] = [path.rename(f"{path}.partial") for path in cut[:2]]
        result = script(*QUICK, "--output", copy)
        assert result.returncode == 0, result.stderr
        for path in cut:
            assert f"note: {path.name} " in result.stdout
        assert contents(copy) == expected
        json.loads((copy / "run.json").read_text())
    assert len(list(copy.glob("*.old"))) == 4 * len(arrays)


def label(path):
    """What a matrix says that it was computed from."""
    return json.loads(path.read_bytes().splitlines()[-1])


def relabel(path, **changes):
    """Change what the file says that its matrix was computed from."""
    content, _, _ = path.read_bytes().rstrip(b"\n").rpartition(b"\n")
    path.write_bytes(content + b"\n" + json.dumps(label(path) | changes).encode() + b"\n")


@pytest.mark.parametrize("key, value", [
    ("dataset_sha256", "0" * 64), ("digits", [3, 5]), ("size", 8), ("trial", 9), ("seed", 1), ("depth", 3),
    ("precision", "float32"), ("formulas", 0), ("test_size", 6),
])  # fmt: skip
def test_foreign_files(copy, undisturbed, script, key, value):
    """Whatever the origin differs in is said, the file kept, finished or not, and the matrix computed again."""
    finished = copy / "digits-fully-connected_seed0_data16_trial0_kernel_test.npy"
    unfinished = copy / "digits-fully-connected_seed0_data4_trial1_kernel_test.npy"
    unfinished = unfinished.rename(f"{unfinished}.partial")
    for path in (finished, unfinished):
        relabel(path, **{key: value})
    old = finished.read_bytes()
    result = script(*QUICK, "--output", copy)
    assert result.returncode == 0, result.stderr
    for path in (finished, unfinished):
        note = f"note: {path.name} was computed from other settings ({key} {value}, not "
        assert note in result.stdout and f"kept as {path.name}.1.old" in result.stdout
    assert (copy / f"{finished.name}.1.old").read_bytes() == old
    assert contents(copy) == contents(undisturbed)


def test_files_that_can_not_be_used(copy, undisturbed, script):
    """NaN, another shape or type, no origin, and a pickle, which is not opened."""

    class Trap:
        def __reduce__(self):
            return Path.touch, (copy / "sprung",)

    def path(size, trial, name="kernel_test"):
        return copy / f"digits-fully-connected_seed0_data{size}_trial{trial}_{name}.npy"

    kernel = np.load(path(16, 0))
    kernel[1, 2] = np.nan
    for file, array in [(path(16, 0), kernel), (path(4, 0), np.ones((4, 5))), (path(4, 1), np.ones((4, 4), "f4"))]:
        np.save(file, array)
        file.write_bytes(file.read_bytes() + f"\n{json.dumps(label(undisturbed / file.name))}\n".encode())
    np.save(path(16, 0, "kernel_train"), np.eye(16))
    for file in (path(4, 0, "kernel_train"), path(4, 1, "train_label")):
        np.save(file, np.array([Trap()] * 4), allow_pickle=True)
    result = script(*QUICK, "--output", copy)
    assert result.returncode == 0, result.stderr
    for file, reason in [
        (path(16, 0), "holds NaN"),
        (path(4, 0), "holds float64 (4, 5), not float64 (4, 4)"),
        (path(4, 1), "holds float32"),
        (path(16, 0, "kernel_train"), "does not say what it was computed from"),
        (path(4, 0, "kernel_train"), "can't be read"),
        (path(4, 1, "train_label"), "is damaged or of other settings"),
    ]:
        assert f"note: {file.name} {reason}" in result.stdout
    assert not (copy / "sprung").exists()
    assert contents(copy) == contents(undisturbed)


def test_a_matrix_is_checked_before_it_gets_its_name(tmp_path):
    path = tmp_path / "some_kernel_train.npy"
    for spoil, words in ((np.nan, "NaN or infinite"), (2, "not symmetric")):
        matrix = training.open_matrix(path, (3, 3), {"size": 3})
        assert np.isnan(matrix).all() and matrix.shape == (3, 3)
        matrix[:] = 1
        matrix[0, 1] = spoil
        with pytest.raises(ValueError, match=words):
            training.finish_matrix(path, matrix)
        assert not path.exists()
        matrix[:] = np.nan
    matrix[:] = 1
    assert np.array_equal(training.finish_matrix(path, matrix), np.ones((3, 3)))
    assert np.array_equal(np.load(path), np.ones((3, 3))) and label(path) == {"size": 3}


def test_another_test_size_keeps_the_training_matrix(copy, undisturbed, script):
    result = script(*QUICK[:-3], "6", *QUICK[-2:], "--output", copy)
    assert result.returncode == 0, result.stderr
    name = "digits-fully-connected_seed0_data16_trial0_kernel_{}.npy"
    assert "(test_size 4, not 6)" in result.stdout
    assert (copy / name.format("train")).read_bytes() == (undisturbed / name.format("train")).read_bytes()
    assert np.load(copy / name.format("test")).shape == (6, 16)
    assert (copy / (name.format("test") + ".1.old")).exists()


def test_float32_is_labelled_and_does_not_mix(tmp_path, script):
    arguments = ("--dataset", "digits", "--data-sizes", 4, "--trials", 1, "--test-size", 4, "--output", tmp_path)
    assert script(*arguments, "--precision", "float32").returncode == 0
    kernels = {n: tmp_path / f"digits-{n}_seed0_data4_trial0_kernel_train.npy" for n in training.networks}
    rounded = np.load(kernels["convolutional"])
    precisions = {"convolutional": "float32", "fully-connected": "float64"}  # seconds anyway
    for network, precision in precisions.items():
        assert label(kernels[network])["precision"] == precision
        assert np.load(tmp_path / f"digits-{network}_results.npz")["precision"] == precision
    assert json.loads((tmp_path / "run.json").read_text())["precision"] == "float32"
    result = script(*arguments)
    assert result.returncode == 0 and "(precision float32, not float64)" in result.stdout
    assert label(kernels["convolutional"])["precision"] == "float64"
    exact = np.load(kernels["convolutional"])
    assert 0 < np.abs(exact / rounded - 1).max() < 1e-4
    assert np.array_equal(np.load(f"{kernels['convolutional']}.1.old"), rounded)


# ---- full disks, held folders ----


@pytest.mark.parametrize("kilobytes", [0, 1, 2, 8])
def test_file_size_limit(undisturbed, tmp_path, script, kilobytes):
    """Every write beyond the limit fails: of the lock's text, a matrix, the results."""
    limited = f"""if True:
        import resource, runpy, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, ({kilobytes * 1024},) * 2)
        runpy.run_path("training.py", run_name="__main__")
    """
    command = [sys.executable, "-c", limited, *QUICK, "--output", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    line = complaint(result)
    assert f"--output {tmp_path}: can't write" in line and "File too large" in line
    expected = contents(undisturbed)
    assert all(expected[name] == content for name, content in contents(tmp_path).items())
    result = script(*QUICK, "--output", tmp_path)
    assert result.returncode == 0 and "note: " not in result.stdout, result.stdout + result.stderr
    found = contents(tmp_path)
    assert found == {name: expected[name] for name in found} and len(found) == 16


def test_full_disk(tmp_path, script, undisturbed):
    """A small disk in memory fills up; with more room the same command goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a disk")
    try:
        line = complaint(script(*QUICK, "--output", disk))
        assert f"--output {disk}: can't write" in line and "No space left on device" in line and "make room" in line
        expected = contents(undisturbed)
        assert all(expected[name] == content for name, content in contents(disk).items())
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        result = script(*QUICK, "--output", disk)
        assert result.returncode == 0 and "note: " not in result.stdout, result.stdout + result.stderr
        found = contents(disk)
        assert found == {name: expected[name] for name in found} and len(found) == 16
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_is_held_by_one_run(tmp_path, script):
    first = start(*TINY[:-1], "100", "--networks", "convolutional", "--output", tmp_path)
    wait_until(lambda: list(tmp_path.glob("*.partial")))
    line = complaint(script(*QUICK, "--output", tmp_path))
    assert f"--output {tmp_path}: in use by process {first.pid} on " in line
    first.kill()
    first.communicate()
    assert script(*QUICK, "--output", tmp_path).returncode == 0  # the lock has died with its owner


# ---- several processes ----


def team(*arguments, only_second=()):
    """Two processes of one run on this machine; the second one has more arguments."""
    where = ("--coordinator", f"127.0.0.1:{free_port()}", "--processes", 2, "--process-id")
    return [start(*arguments, *where, 0), start(*arguments, *where, 1, *only_second)]


def finish(processes, seconds=200):
    """Return codes, outputs and errors of processes that end."""
    try:
        texts = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def test_two_processes_give_the_numbers_of_one(tmp_path, undisturbed):
    leader, follower = finish(team(*TINY, "--output", tmp_path))
    assert leader[0] == follower[0] == 0, leader[2] + follower[2]
    assert contents(tmp_path) == contents(undisturbed)
    assert "(2 processes)" in leader[1] and "wrote" in leader[1]
    assert "process 1 of 2" in follower[1] and "wrote" not in follower[1]
    assert json.loads((tmp_path / "run.json").read_text())["processes"] == 2


def test_two_processes_with_jax(tmp_path, undisturbed):
    """The fully-connected network's rows on one mesh of both processes' devices."""
    leader, follower = finish(team(*QUICK, "--engine", "jax", "--output", tmp_path))
    assert leader[0] == follower[0] == 0, leader[2] + follower[2]
    for name, content in contents(undisturbed).items():
        if "fully-connected" in name and "kernel" in name:
            expected, found = np.load(undisturbed / name), np.load(tmp_path / name)
            assert np.allclose(found, expected, rtol=1e-12, atol=1e-15), name
            assert len(content) == (tmp_path / name).stat().st_size


def test_the_convolutional_mesh_of_two_processes():
    """The JAX engine on both processes' devices against the Numba engine on one."""
    program = f"""if True:
        import sys, jax, numpy as np
        sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
        import training, test_kernels
        x = test_kernels.small_images(7)
        found = training.convolutional_ntk(x[:3], x, depth=6, engine="jax")
        shared = training.convolutional_ntk(x, depth=6, engine="numba")  # both processes take their share
        jax.distributed.shutdown()
        expected = training.convolutional_ntk(x, depth=6, engine="numba")
        assert len(jax.devices()) == 2 and np.array_equal(shared, expected)
        print(np.abs(found / expected[:3] - 1).max())
    """
    where = f"127.0.0.1:{free_port()}"
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    processes = [subprocess.Popen([sys.executable, "-c", program, where, str(i)], **pipes) for i in range(2)]
    for code, printed, errors in finish(processes):
        assert code == 0, errors
        assert float(printed.splitlines()[-1]) < 1e-11


def test_slurm_says_who_is_who(tmp_path, undisturbed):
    """What `srun` provides is enough."""
    job = str(free_port())
    common = {"SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    environments = [common | {"SLURM_PROCID": str(i), "SLURM_LOCALID": "0"} for i in range(2)]
    ended = finish([start(*QUICK, "--output", tmp_path, environment=environment) for environment in environments])
    assert [code for code, *_ in ended] == [0, 0], ended
    found = contents(tmp_path)
    assert found == {name: contents(undisturbed)[name] for name in found} and len(found) == 16


@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_run(tmp_path, victim, script):
    arguments = ("--dataset", "digits", "--networks", "convolutional", "--data-sizes", "4", "--trials", "1")
    arguments += ("--test-size", "160", "--output", tmp_path)
    processes = team(*arguments)
    wait_until(lambda: list(tmp_path.glob("*data4_*.partial")))
    processes[victim].kill()
    ended = time.monotonic()
    code, _, errors = finish(processes)[1 - victim]
    assert time.monotonic() - ended < 120
    assert code == 1
    last = errors.splitlines()[-1]
    assert last.startswith("training.py: error: ") and "run it again, all processes of it" in last
    assert ("another process ended" in last) or ("the processes lost each other" in last)
    assert list(tmp_path.glob("*.partial"))
    result = script(*arguments)
    assert result.returncode == 0 and "note" not in result.stdout, result.stderr
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob("*.old"))


def test_an_abort_of_jax_is_explained():
    """In C++, where Python has no say."""
    where = f"127.0.0.1:{free_port()}"
    program = f"import kernels, os; kernels.join_processes({where!r}, 1, 0); os.abort()"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.returncode == 1
    line = f"training.py: error: --coordinator {where}: another process ended; {kernels.run_again}"
    assert result.stderr.splitlines()[-1] == line


def test_processes_that_disagree(tmp_path):
    """Whoever ends first says why; the other may only notice that it is alone."""
    ended = finish(team(*QUICK, "--output", tmp_path, only_second=("--seed", 7)))
    assert {code for code, *_ in ended} <= {1, 2}
    words = "--process-id 1: have other data, options or another version"
    assert any(code == 2 and words in errors for code, _, errors in ended)
    assert all(words in errors or code == 1 for code, _, errors in ended)
