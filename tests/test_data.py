"""Loading and drawing data."""

import gzip
import shutil
import socket
import sys

import numpy as np
import pytest

import training


def test_digits_have_the_format_of_mnist(digits):
    for split in ("train", "test"):
        image, label = digits[split]["image"], digits[split]["label"]
        assert image.dtype == np.uint8 and image.shape == (len(label), 28, 28, 1)
        assert np.issubdtype(label.dtype, np.integer) and set(label) == set(range(10))
        assert image.max() == 255 and image.min() == 0
    assert len(digits["train"]["label"]) + len(digits["test"]["label"]) == 1797
    assert "tensorflow" not in sys.modules


def test_mnist_from_idx_files(mnist_dir):
    data = training.load_data("mnist", mnist_dir)
    assert data["train"]["image"].shape == (60000, 28, 28, 1) and data["train"]["image"].dtype == np.uint8
    assert data["test"]["image"].shape == (10000, 28, 28, 1)
    assert list(data["train"]["label"][:6]) == [5, 0, 4, 1, 9, 2]
    assert "tensorflow" not in sys.modules


def test_mnist_through_tfds_is_the_same_data(mnist_dir, tmp_path, monkeypatch):
    """TFDS lists the images in another order; in canonical order, and so in every trial, they are the same."""
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    for name in training.MNIST_FILES:
        shutil.copy(mnist_dir / name, manual)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("MNIST_DIR", raising=False)
    through_tfds = training.load_data("mnist")
    from_files = training.load_data("mnist", mnist_dir)
    for split in ("train", "test"):
        found, expected = (training.canonical_order(d[split]) for d in (through_tfds, from_files))
        assert np.array_equal(found["image"], expected["image"])
        assert np.array_equal(found["label"], expected["label"])
    assert "tensorflow" not in sys.modules


def test_unknown_dataset():
    with pytest.raises(ValueError, match="cifar10"):
        training.load_data("cifar10")


def damaged(mnist_dir, folder, damage):
    """A copy of the MNIST folder with its label file of the test set damaged."""
    for name in training.MNIST_FILES:
        shutil.copy(mnist_dir / name, folder)
    damage(folder / "t10k-labels-idx1-ubyte.gz")
    return folder


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda path: path.unlink(), "can't read t10k-labels"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "t10k-labels.* corrupted .1000 bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "t10k-labels.* corrupted"),
        (lambda path: path.write_bytes(gzip.compress(b"no IDX file")), "t10k-labels.* corrupted"),
    ],
)
def test_damaged_idx_files(mnist_dir, tmp_path, script, damage, words):
    folder = damaged(mnist_dir, tmp_path, damage)
    with pytest.raises(ValueError, match=words):
        training.load_data("auto", folder)
    result = script("--mnist-dir", folder, "--output", tmp_path / "output")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "--mnist-dir" in result.stderr


def test_missing_mnist_dir(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        training.load_data("mnist", tmp_path / "nowhere")


def test_no_network_is_noticed():
    """A server that never answers, and one that isn't there, end in ConnectionError."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConnectionError, match="no answer in 1 s"):
        training.check_connection(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=1)
    with pytest.raises(ConnectionError, match="refused"):
        training.check_connection("http://127.0.0.1:9/")


@pytest.mark.parametrize("flatten", [True, False])
def test_process_data(real_data, flatten):
    chunk = real_data["train"]
    image, label = training.process_data(chunk, (8, 9), 20, flatten, np.random.default_rng(4))
    assert image.shape == ((40, 784) if flatten else (40, 28, 28, 1)) and image.dtype == np.float64
    assert list(label) == [1] * 20 + [-1] * 20
    flat = image.reshape(40, -1)
    assert np.allclose(np.sum(flat**2, axis=1), 1)
    # Undo the scaling and look every image up in the dataset: nines first, no image twice.
    nines, eights = (chunk["image"][chunk["label"] == d].reshape(-1, 784) for d in (9, 8))
    seen = set()
    for i, digits_of_class in enumerate([nines] * 20 + [eights] * 20):
        low, high = flat[i].min(), flat[i].max()
        candidates = digits_of_class - digits_of_class.min(axis=1, keepdims=True).astype(float)
        candidates /= candidates.max(axis=1, keepdims=True)
        distance = np.abs(candidates - (flat[i] - low) / (high - low)).max(axis=1)
        assert distance.min() < 1e-9
        seen.add((label[i], int(distance.argmin())))
    assert len(seen) == 40
    again, _ = training.process_data(chunk, (8, 9), 20, flatten, np.random.default_rng(4))
    other, _ = training.process_data(chunk, (8, 9), 20, flatten, np.random.default_rng(5))
    assert np.array_equal(again, image) and not np.array_equal(other, image)


def test_process_data_standardises():
    """One pixel bright, by hand: the mean and the deviation are those of the chosen subset, all pixels together."""
    image = np.zeros((2, 2, 2, 1), np.uint8)
    image[0, 0, 0] = 8
    chunk = {"image": image, "label": np.array([3, 5])}
    found, label = training.process_data(chunk, (3, 5), 1, True, np.random.default_rng(0))
    values = np.array([0, 0, 0, 0, 8, 0, 0, 0]) - 1.0
    expected = values.reshape(2, 4) / np.array([[2], [np.sqrt(52)]])
    assert list(label) == [1, -1]
    assert np.allclose(found, expected)


def test_process_data_takes_fewer_where_there_are_not_enough(digits, capsys):
    image, label = training.process_data(digits["test"], (8, 9), 500, True, np.random.default_rng(0))
    fewer = min(np.sum(digits["test"]["label"] == d) for d in (8, 9))
    assert len(image) == len(label) == 2 * fewer and label.sum() == 0
    assert f"only {fewer} images" in capsys.readouterr().out


def test_draws_are_independent_of_each_other():
    draws = {
        tuple(training.random_generator(*key).integers(2**62, size=2))
        for key in [
            (0, "convolutional", 16, 0, "train"),
            (1, "convolutional", 16, 0, "train"),
            (0, "fully-connected", 16, 0, "train"),
            (0, "convolutional", 32, 0, "train"),
            (0, "convolutional", 16, 1, "train"),
            (0, "convolutional", 16, 0, "test"),
        ]
    }
    assert len(draws) == 6


def test_separability_and_depth():
    x = np.array([[1.0, 0], [0.6, 0.8], [0, -1]])
    assert np.isclose(training.separability(x), 0.2)
    assert training.fully_connected_depth(16, 0.25) == round(0.1 * 8 * np.log(64) / training.nonlinearity)
    assert training.fully_connected_depth(512, 0.0) > 0
