"""The data sets: what is in them, and what is said when they are not there or not whole."""

import dataclasses
import struct

import pytest
import torch

from normbench import data
from normbench.data import (
    MNIST_FILES,
    DatasetDamaged,
    DatasetUnavailable,
    ensure_dataset,
    load_dataset,
)

CPU = torch.device("cpu")


def write_mnist(root) -> None:
    """Write files of MNIST's form and size: image n is filled with n % 256, its label is n % 10."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        numbers = torch.arange(count)
        pixels = (numbers % 256).to(torch.uint8).view(-1, 1).expand(-1, 784).contiguous()
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.numpy().tobytes())
        labels = (numbers % 10).to(torch.uint8).numpy().tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)


@pytest.fixture(scope="module")
def mnist_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_mnist(root)
    return root


@pytest.fixture
def offline(monkeypatch):
    def refuse(root):
        raise OSError("no network")

    for name, source in data.SOURCES.items():
        if source.download:
            monkeypatch.setitem(data.SOURCES, name, dataclasses.replace(source, download=refuse))


def test_the_digits_need_no_download(tmp_path):
    digits = load_dataset("digits", tmp_path, CPU)
    assert digits.train_images.shape == (1348, 1, 8, 8)
    assert data.SOURCES["digits"].training_images == 1348
    assert digits.test_images.shape == (449, 1, 8, 8)
    assert digits.train_images.dtype == torch.uint8
    assert digits.test_labels.bincount().min() >= 40
    pixels = digits.train_images.double() / 255
    assert pixels.mean().item() == pytest.approx(digits.mean, abs=5e-4)
    assert pixels.std().item() == pytest.approx(digits.std, abs=5e-4)


def test_mnist_comes_from_torchvisions_files(mnist_root):
    mnist = load_dataset("mnist", mnist_root, CPU)
    assert mnist.train_images.shape == (60_000, 1, 28, 28)
    assert data.SOURCES["mnist"].training_images == 60_000
    assert mnist.test_images.shape == (10_000, 1, 28, 28)
    assert mnist.train_images[300, 0, 5, 5] == 300 % 256
    assert mnist.train_labels[59_999] == 9


def test_the_held_out_part_is_the_end_of_the_training_set(mnist_root):
    heldout = load_dataset("mnist-heldout", mnist_root, CPU)
    assert heldout.train_images.shape == (50_000, 1, 28, 28)
    assert data.SOURCES["mnist-heldout"].training_images == 50_000
    assert heldout.test_images.shape == (10_000, 1, 28, 28)
    assert heldout.test_images[0, 0, 0, 0] == 50_000 % 256


def test_a_data_set_is_loaded_once(mnist_root):
    assert load_dataset("mnist", mnist_root, CPU) is load_dataset("mnist", mnist_root, CPU)


def test_a_data_set_that_is_not_there_says_where_and_what_to_do(tmp_path, offline):
    with pytest.raises(
        DatasetUnavailable,
        match=r"MNIST is not in .*raw, and it could not be downloaded; name its folder with "
        r"--bench-data DIR or \$NORMBENCH_DATA, or run once with a network \(OSError: no network\)",
    ):
        ensure_dataset("mnist", tmp_path)


def test_a_data_set_that_is_not_there_is_downloaded(tmp_path, monkeypatch):
    source = data.SOURCES["mnist"]
    monkeypatch.setitem(data.SOURCES, "mnist", dataclasses.replace(source, download=write_mnist))
    ensure_dataset("mnist", tmp_path)
    assert (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").stat().st_size == 10_008


def test_a_truncated_file_is_named_with_both_sizes(tmp_path, offline):
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        DatasetDamaged,
        match=r"train-images-idx3-ubyte has 1,000 bytes: expected 47,040,016; remove",
    ):
        ensure_dataset("mnist", tmp_path)


def test_a_missing_file_among_others_is_named(tmp_path, offline):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetDamaged, match=r"raw lacks t10k-labels-idx1-ubyte: expected"):
        ensure_dataset("mnist", tmp_path)


def test_a_torchvision_that_does_not_pair_is_said_in_plain_words(mnist_root, monkeypatch):
    import builtins

    real_import = builtins.__import__

    def broken(name, *arguments, **keywords):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(
        DatasetUnavailable,
        match=r"torchvision does not work with torch .*; install the torchvision",
    ):
        data.mnist(mnist_root)


def test_the_data_root_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NORMBENCH_DATA", str(tmp_path))
    assert data.default_root() == tmp_path
    monkeypatch.delenv("NORMBENCH_DATA")
    assert data.default_root().name == "normbench"


def test_every_file_of_mnist_has_its_size():
    assert sum(MNIST_FILES.values()) == 54_950_048
