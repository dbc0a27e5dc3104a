"""Trials above the limit.

Of the kernel only the entries that their patterns need, in files that survive.
"""

import numpy as np
import pytest
import scipy.sparse
from conftest import SHALLOW

import training
from ntk import BadInput
from runtime import checkpoints, kernels, verification
from runtime.trials import Run, Trial

STEM = "digits-convolutional_seed0_data64_trial0_kernel_"


@pytest.fixture
def limited(monkeypatch):
    """A limit below 64 images."""
    monkeypatch.setattr(training, "convolutional_depth", SHALLOW)
    monkeypatch.setattr(training, "whole_kernel_limit", 32)
    monkeypatch.setattr(training, "test_size_above_limit", 4)


@pytest.fixture
def run(tmp_path, digits):
    return Run(0, 8, tmp_path, "numba", "float64", digits)


def trial_of(number=0):
    return Trial(training.make_networks()["convolutional"], (1, 0), 64, number)


def test_the_file_holds_the_entries_of_the_patterns_and_says_what_it_is(limited, run):
    """Of all patterns, drawn anew.

    Fewer test images; less precision, but for the reference kernel.
    """
    trial = trial_of()
    reference = training.reference_kernel(run, trial)
    before = {path: path.read_bytes() for path in run.output.glob("*data16*")}
    found = training.trial_kernels(run, trial)
    assert before and before == {path: path.read_bytes() for path in before}
    assert found.scale == training.convolutional_scale(SHALLOW, reference)
    stored, label = checkpoints.read_kernel(run.output / f"{STEM}entries.npy")
    needed = np.eye(64, dtype=bool)
    for pattern in training.trial_patterns(0, trial):
        needed |= pattern.matrix.toarray()
    rows, columns = np.nonzero(np.tril(needed))
    assert np.array_equal(stored["row"], rows) and np.array_equal(stored["column"], columns)
    assert label["entries"] == {"original": 3, "corrected": 3}
    assert label["precision"] == "float32" and found.test.shape == (4, 64)
    train, test, common = checkpoints.read_kernel_pair(run.output, "digits-convolutional", 64, 0, 0)
    assert scipy.sparse.issparse(train) and np.array_equal(test, found.test)
    assert "entries" not in common and common["size"] == 64
    assert checkpoints.finished_trials(run.output, "digits-convolutional", 0) == {64: [0]}


def test_what_is_kept_is_read_and_what_was_stopped_goes_on_to_the_same_bytes(
    limited, run, tmp_path
):
    """Stopped after the second block of pairs, as its values had been written."""
    seen = []

    def stop_at_second(pairs):
        seen.append(pairs)
        if len(seen) == 2:
            raise KeyboardInterrupt

    (tmp_path / "whole").mkdir()
    whole = Run(0, 8, tmp_path / "whole", "numba", "float64", run.images)
    training.trial_kernels(whole, trial_of())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kernels, "pairs_at_once", lambda pairs: 64)
        training.trial_kernels(run, trial_of(), stop_at_second)
    need = training.need_of(run, trial_of())
    files = training.trial_files(run, trial_of())
    before = kernels.missing_pairs(files, need)
    assert 0 < before < kernels.trial_pairs(files, need)
    known = []
    training.trial_kernels(run, trial_of(), known.append)
    assert known[0] == 64
    for path in (tmp_path / "whole").glob("*data64*.npy"):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
    assert not list(tmp_path.glob("*.partial")) and kernels.missing_pairs(files, need) == 0


def test_entries_of_other_patterns_are_put_aside(limited, run, capsys):
    training.trial_kernels(run, trial_of())
    path = run.output / f"{STEM}entries.npy"
    right = path.read_bytes()
    entries, label = checkpoints.read_kernel(path)
    del label["sha256"]
    checkpoints.write_kernel(path, entries[:-1], label)
    training.trial_kernels(run, trial_of())
    assert (
        f"note: {path.name} holds other entries than those of this trial's patterns"
        in capsys.readouterr().out
    )
    assert path.read_bytes() == right
    checkpoints.write_kernel(path, entries, label | {"entries": {"original": 30, "corrected": 3}})
    training.trial_kernels(run, trial_of())
    assert "was computed from other settings (entries" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["entries", "test"])
def test_a_sample_is_verified(limited, run, name):
    trial = trial_of()
    training.trial_kernels(run, trial)
    images = training.trial_images(run, trial)
    both, files = np.concatenate([images.train, images.test]), training.trial_files(run, trial)
    compared = verification.compare_sample(files, both, f"kernel_{name}")
    assert compared.difference == 0 and compared.limit == 1e-4
    path = run.output / f"{STEM}{name}.npy"
    kernel, label = checkpoints.read_kernel(path)
    values = kernel["value"] if name == "entries" else kernel
    values *= 1.5
    del label["sha256"]
    checkpoints.write_kernel(path, kernel, label)
    assert verification.compare_sample(files, both, f"kernel_{name}").difference == pytest.approx(
        1 / 3, rel=1e-3
    )
    path.unlink()
    with pytest.raises(BadInput, match="can't be read"):
        verification.compare_sample(files, both, f"kernel_{name}")
