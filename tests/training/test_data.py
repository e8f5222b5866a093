"""The data sets: what is in them, and what is said when they are not there or not whole."""

import dataclasses
import hashlib
import pickle
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from normbench.training import data, sources
from normbench.training.data import ensure_dataset, load_dataset
from normbench.training.datasets import (
    DATASETS,
    DatasetDamaged,
    DatasetUnavailable,
    dataset_on_disk,
    default_root,
    find_dataset,
)
from normbench.training.image_data import content_digest
from normbench.training.sources import MNIST_FILES

CPU = torch.device("cpu")


def write_mnist(root: Path, folder: str = "MNIST") -> None:
    """Write files of MNIST's form and size: image n is filled with n % 256, its label is n % 10."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        numbers = torch.arange(count)
        pixels = (numbers % 256).to(torch.uint8).view(-1, 1).expand(-1, 784).contiguous()
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.numpy().tobytes())
        labels = (numbers % 10).to(torch.uint8).numpy().tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)


@pytest.fixture(scope="module", autouse=True)
def made_is_published() -> Iterator[None]:
    """Let what write_mnist writes be MNIST as it was published."""
    digest = hashlib.sha256()
    for count in (60_000, 10_000):
        numbers = np.arange(count)
        pixels = np.repeat((numbers % 256).astype(np.uint8), 784).reshape(count, 1, 28, 28)
        for array in (pixels, (numbers % 10).astype("<i8")):
            digest.update(f"{array.shape} ".encode() + array.tobytes())
    made = dataclasses.replace(DATASETS["mnist"], content=digest.hexdigest()[:16])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "mnist", made)
        yield


@pytest.fixture(scope="module")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_mnist(root)
    return root


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: Path) -> NoReturn:
        raise OSError("no network")

    monkeypatch.setattr(data, "DOWNLOAD_PAUSES", (0.0,))
    for name, source in sources.SOURCES.items():
        if source.download:
            monkeypatch.setitem(sources.SOURCES, name, dataclasses.replace(source, download=refuse))


def test_the_digits_need_no_download(tmp_path: Path) -> None:
    digits = load_dataset("digits", tmp_path, CPU)
    assert digits.train_images.shape == (1348, 1, 8, 8)
    facts = DATASETS["digits"]
    assert facts.training_images == 1348
    assert digits.train_images.shape[1:] == (facts.image_channels, *[facts.image_size] * 2)
    assert digits.test_images.shape == (449, 1, 8, 8)
    assert digits.train_images.dtype == torch.uint8
    assert digits.test_labels.bincount().min() >= 40
    pixels = digits.train_images.double() / 255
    assert pixels.mean().item() == pytest.approx(digits.mean, abs=5e-4)
    assert pixels.std().item() == pytest.approx(digits.std, abs=5e-4)


def test_mnist_comes_from_torchvisions_files(mnist_root: Path) -> None:
    mnist = load_dataset("mnist", mnist_root, CPU)
    assert mnist.train_images.shape == (60_000, 1, 28, 28)
    facts = DATASETS["mnist"]
    assert facts.training_images == 60_000
    assert mnist.train_images.shape[1:] == (facts.image_channels, *[facts.image_size] * 2)
    assert mnist.test_images.shape == (10_000, 1, 28, 28)
    assert mnist.train_images[300, 0, 5, 5] == 300 % 256
    assert mnist.train_labels[59_999] == 9


def test_the_held_out_part_is_the_end_of_the_training_set(mnist_root: Path) -> None:
    heldout = load_dataset("mnist-heldout", mnist_root, CPU)
    assert heldout.train_images.shape == (50_000, 1, 28, 28)
    assert DATASETS["mnist-heldout"].training_images == 50_000
    assert heldout.test_images.shape == (10_000, 1, 28, 28)
    assert heldout.test_images[0, 0, 0, 0] == 50_000 % 256


def test_a_data_set_is_loaded_once(mnist_root: Path) -> None:
    assert load_dataset("mnist", mnist_root, CPU) is load_dataset("mnist", mnist_root, CPU)


def test_a_data_set_that_is_not_there_says_where_and_what_to_do(
    tmp_path: Path, offline: None
) -> None:
    with pytest.raises(
        DatasetUnavailable,
        match=r"MNIST is not in .*raw, and it could not be downloaded; name its folder with "
        r"--bench-data DIR or \$NORMBENCH_DATA, or run once with a network \(OSError: no network\)",
    ):
        ensure_dataset("mnist", tmp_path)


def test_a_data_set_that_is_not_there_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sources.SOURCES["mnist"]
    monkeypatch.setitem(sources.SOURCES, "mnist", dataclasses.replace(source, download=write_mnist))
    ensure_dataset("mnist", tmp_path)
    assert (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").stat().st_size == 10_008


def test_a_download_that_fails_is_tried_again_and_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "DOWNLOAD_PAUSES", (0.0, 0.0))
    errors: list[Exception] = []

    def broken_off(root: Path) -> None:
        assert not (tmp_path / "MNIST").exists()
        if errors:
            (root / "MNIST").mkdir(exist_ok=True)
            (root / "MNIST" / "half").write_text("of it")
            raise errors.pop()
        (root / "MNIST" / "half").unlink(missing_ok=True)
        write_mnist(root)

    source = dataclasses.replace(sources.SOURCES["mnist"], download=broken_off)
    monkeypatch.setitem(sources.SOURCES, "mnist", source)
    # three attempts are one too few
    errors[:] = [RuntimeError("File not found or corrupted.")] * 3
    with pytest.raises(DatasetUnavailable, match="File not found or corrupted"):
        ensure_dataset("mnist", tmp_path)
    assert [file.name for file in tmp_path.iterdir() if file.name != ".mnist.lock"] == []
    # and without a network there is nothing to wait for
    errors[:] = [OSError(), URLError(socket.gaierror("Name or service not known"))]
    monkeypatch.setattr(data, "DOWNLOAD_PAUSES", (0.0, 0.0, 0.0))
    with pytest.raises(DatasetUnavailable, match="Name or service not known"):
        ensure_dataset("mnist", tmp_path)
    assert len(errors) == 1
    ensure_dataset("mnist", tmp_path)
    assert sorted(file.name for file in (tmp_path / "MNIST").iterdir()) == ["raw"]


def test_a_truncated_file_is_named_with_both_sizes(tmp_path: Path, offline: None) -> None:
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        DatasetDamaged,
        match=r"train-images-idx3-ubyte has 1,000 bytes: expected 47,040,016; remove",
    ):
        ensure_dataset("mnist", tmp_path)


def test_a_missing_file_among_others_is_named(tmp_path: Path, offline: None) -> None:
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetDamaged, match=r"raw lacks t10k-labels-idx1-ubyte: expected"):
        ensure_dataset("mnist", tmp_path)


def test_a_torchvision_that_does_not_pair_is_said_in_plain_words(
    mnist_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    real_import = builtins.__import__

    def broken(name: str, *arguments: Any, **keywords: Any) -> ModuleType:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(
        DatasetUnavailable,
        match=r"torchvision does not work with torch .*; install the torchvision",
    ):
        sources.mnist(mnist_root)


def test_the_data_root_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NORMBENCH_DATA", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("NORMBENCH_DATA")
    assert default_root().name == "normbench"


def test_every_file_of_mnist_has_its_size() -> None:
    assert sum(MNIST_FILES.values()) == 54_950_048


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write files of CIFAR-10's form, two images a file, and have torchvision expect their MD5."""
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir()

    def written(name: str, document: dict[str, object]) -> str:
        content = pickle.dumps(document)
        (folder / name).write_bytes(content)
        return hashlib.md5(content).hexdigest()

    def batch(number: int) -> dict[str, object]:
        pixels = np.arange(2 * 3072, dtype=np.uint32).reshape(2, 3072) % 251 + number
        return {"data": pixels.astype(np.uint8), "labels": [number, number + 1]}

    files = [f"data_batch_{number}" for number in range(1, 6)]
    train = [[name, written(name, batch(n))] for n, name in enumerate(files, start=1)]
    meta = written("batches.meta", {"label_names": [f"class {n}" for n in range(10)]})
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", written("test_batch", batch(0))]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})


def write_cifar10_jpeg(
    root: Path, monkeypatch: pytest.MonkeyPatch, train: int = 40, test: int = 20
) -> None:
    """Write a JPEG copy of a few images: those of class c are of one grey, 20 * c."""
    for part, count in (("train", train), ("test", test)):
        for n in range(count):
            folder = root / "cifar10-jpeg" / part / f"class{n % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            grey = Image.new("RGB", (32, 32), (20 * (n % 10),) * 3)
            grey.save(folder / f"{n:04}.jpg")
    monkeypatch.setattr(sources, "CIFAR10_PARTS", {"train": train, "test": test})


def test_cifar10_comes_from_torchvisions_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    write_cifar10(tmp_path, monkeypatch)
    ensure_dataset("cifar10", tmp_path)
    cifar10 = sources.cifar10(tmp_path)
    assert cifar10.train_images.shape == (10, 3, 32, 32)
    assert cifar10.test_images.shape == (2, 3, 32, 32)
    assert cifar10.train_labels.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    # in the files a row is 1024 reds, 1024 greens, 1024 blues
    green, row, column = 1, 3, 7
    assert cifar10.test_images[0, green, row, column] == (1024 + 3 * 32 + 7) % 251


def test_a_changed_file_of_cifar10_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    write_cifar10(tmp_path, monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DatasetDamaged, match=r"data_batch_3 are missing or not as published"):
        ensure_dataset("cifar10", tmp_path)


def test_cifar10_that_is_nowhere_says_where_it_was_looked_for(
    tmp_path: Path, offline: None
) -> None:
    with pytest.raises(
        DatasetUnavailable, match=r"CIFAR-10 is not in .*cifar-10-batches-py, and it could not be"
    ):
        ensure_dataset("cifar10", tmp_path)


def test_the_jpeg_copy_is_decoded_with_its_classes_in_alphabetical_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10_jpeg(tmp_path, monkeypatch)
    ensure_dataset("cifar10-jpeg", tmp_path)
    copy = sources.cifar10_jpeg(tmp_path)
    assert copy.name == "cifar10-jpeg"
    assert copy.train_images.shape == (40, 3, 32, 32)
    assert copy.test_images.shape == (20, 3, 32, 32)
    facts = DATASETS["cifar10-jpeg"]
    assert (facts.image_channels, facts.image_size) == (3, 32)
    assert copy.test_labels.bincount().tolist() == [2] * 10
    # one grey survives the compression
    assert torch.equal(copy.train_images.float().mean((1, 2, 3)), copy.train_labels * 20.0)


def test_the_copys_held_out_part_is_drawn_from_all_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10_jpeg(tmp_path, monkeypatch, train=90)
    heldout = load_dataset("cifar10-jpeg-heldout", tmp_path, CPU)
    assert heldout.name == "cifar10-jpeg-heldout"
    # a sixth of 90
    assert (len(heldout.train_labels), len(heldout.test_labels)) == (75, 15)
    assert len(heldout.test_labels.unique()) > 5
    both = torch.cat([heldout.train_labels, heldout.test_labels])
    assert both.bincount().tolist() == [9] * 10


def test_a_truncated_or_a_missing_image_of_the_copy_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10_jpeg(tmp_path, monkeypatch)
    image = tmp_path / "cifar10-jpeg" / "test" / "class3" / "0013.jpg"
    image.write_bytes(image.read_bytes()[:-40])
    with pytest.raises(DatasetDamaged, match=r"class3/0013.jpg is truncated: expected a JPEG"):
        ensure_dataset("cifar10-jpeg", tmp_path)
    image.unlink()
    with pytest.raises(DatasetDamaged, match=r"test holds 19 images of 10 classes: expected 20"):
        ensure_dataset("cifar10-jpeg", tmp_path)


def test_a_copy_that_is_not_there_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailable, match=r"cifar10-jpeg is not there: expected \{train"):
        ensure_dataset("cifar10-jpeg", tmp_path)


def test_the_copy_stands_in_for_cifar10_where_only_the_copy_is_on_disk(tmp_path: Path) -> None:
    assert dataset_on_disk("cifar10", tmp_path) == "cifar10"
    (tmp_path / "cifar10-jpeg").mkdir()
    assert dataset_on_disk("cifar10", tmp_path) == "cifar10-jpeg"
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert dataset_on_disk("cifar10", tmp_path) == "cifar10"
    assert dataset_on_disk("mnist", tmp_path) == "mnist"


def test_a_part_of_the_training_images_is_drawn_with_their_labels(tmp_path: Path) -> None:
    digits = load_dataset("digits", tmp_path, CPU)
    part = digits.training_part(100, torch.Generator().manual_seed(0))
    assert part.train_images.shape == (100, 1, 8, 8)
    assert part.test_images is digits.test_images
    by_image = {
        image.numpy().tobytes(): label
        for image, label in zip(digits.train_images, digits.train_labels.tolist(), strict=True)
    }
    drawn = [by_image[image.numpy().tobytes()] for image in part.train_images]
    assert drawn == part.train_labels.tolist()
    other = digits.training_part(100, torch.Generator().manual_seed(1))
    assert not torch.equal(part.train_images, other.train_images)


@pytest.mark.parametrize(
    "name", ["mnist-heldout", "fashion-mnist", "kmnist", "svhn", "cifar10", "cifar10-jpeg"]
)
def test_loading_what_is_not_there_says_so_for_every_data_set(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetUnavailable, match=r"name (its folder|the folder that it lies in)"):
        load_dataset(name, tmp_path, CPU)


def test_an_unknown_data_set_lists_the_known_ones(tmp_path: Path) -> None:
    told = (
        r"^unknown data set 'emnist': expected one of digits, mnist, fashion-mnist, kmnist, svhn, "
        r"cifar10, cifar10-jpeg, folder:PATH or package.module:function, each .* -heldout$"
    )
    for ask in (find_dataset, lambda name: load_dataset(name, tmp_path, CPU)):
        with pytest.raises(ValueError, match=told):
            ask("emnist")
    with pytest.raises(ValueError, match=told):
        ensure_dataset("emnist", tmp_path)


def test_the_fingerprint_of_mnist_is_that_of_its_bytes(mnist_root: Path) -> None:
    # made_is_published has worked it out without the data set's code
    assert load_dataset("mnist", mnist_root, CPU).content == DATASETS["mnist"].content


def test_a_fingerprint_tells_of_each_image_and_label(tmp_path: Path) -> None:
    digits = load_dataset("digits", tmp_path, CPU)
    one_label = digits.test_labels.clone()
    one_label[7] += 1
    changed = dataclasses.replace(digits, test_labels=one_label)
    assert content_digest(changed) != digits.content == content_digest(digits)
    assert len(digits.content) == 16
    # as many bytes in the same order, of other shapes
    turned = dataclasses.replace(digits, test_images=digits.test_images.transpose(0, 1))
    assert content_digest(turned) != digits.content


def test_one_data_set_in_the_folder_of_another_is_refused(mnist_root: Path, tmp_path: Path) -> None:
    (tmp_path / "FashionMNIST").symlink_to(mnist_root / "MNIST")
    (tmp_path / "KMNIST").symlink_to(mnist_root / "MNIST")
    with pytest.raises(
        DatasetDamaged,
        match=r"FashionMNIST/raw does not hold Fashion-MNIST: its images and labels have the "
        r"fingerprint \w{16}, which are those of MNIST: expected 7342b1902b73000d, those of "
        r"Fashion-MNIST as it was published; remove the folder",
    ):
        ensure_dataset("fashion-mnist-heldout", tmp_path)
    with pytest.raises(DatasetDamaged, match=r"hold Kuzushiji-MNIST: .* those of MNIST: remove"):
        load_dataset("kmnist", tmp_path, CPU)


def test_what_has_mnists_form_alone_is_told_from_kuzushiji(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path, "KMNIST")
    monkeypatch.setitem(DATASETS, "mnist", dataclasses.replace(DATASETS["mnist"], content="other"))
    kmnist = load_dataset("kmnist", tmp_path, CPU)
    assert kmnist.train_images.shape == (60_000, 1, 28, 28)
    assert kmnist.test_labels[:11].tolist() == [*range(10), 0]
    # images are of one level each, 234 times 0 to 255 and once 0 to 95
    levels = np.arange(60_000) % 256 / 255
    assert kmnist.mean == pytest.approx(levels.mean(), abs=1e-12)
    assert kmnist.std == pytest.approx(levels.std(), abs=1e-12)
    assert len(find_dataset("kmnist").classes) == 10


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write files of the cropped SVHN's form, ten images a file, and have their MD5 expected."""
    from torchvision.datasets import SVHN

    folder = root / "SVHN"
    folder.mkdir()
    expected = {}
    for split, level in (("train", 50), ("test", 90)):
        images = np.full((32, 32, 3, 10), level, dtype=np.uint8)
        images[3, 7, 1, 4] = 255
        # the digit 0 is labelled 10
        labels = np.arange(1, 11, dtype=np.uint8).reshape(10, 1)
        file = folder / f"{split}_32x32.mat"
        savemat(file, {"X": images, "y": labels})
        expected[split] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", expected)


def test_svhn_comes_from_torchvisions_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_svhn(tmp_path, monkeypatch)
    ensure_dataset("svhn", tmp_path)
    svhn = load_dataset("svhn", tmp_path, CPU)
    assert svhn.train_images.shape == svhn.test_images.shape == (10, 3, 32, 32)
    assert svhn.train_images[4, :, 3, 7].tolist() == [50, 255, 50]
    assert svhn.test_labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert svhn.mean == pytest.approx((50 + 205 / (10 * 3 * 1024)) / 255)
    (tmp_path / "SVHN" / "test_32x32.mat").unlink()
    with pytest.raises(DatasetDamaged, match=r"SVHN: test_32x32.mat are missing or not as pub"):
        ensure_dataset("svhn", tmp_path)


def test_every_built_in_data_set_has_a_held_out_part(tmp_path: Path) -> None:
    sizes = {name: (facts.training_images, facts.test_images) for name, facts in DATASETS.items()}
    assert sizes["digits-heldout"] == (1348 - 224, 224)
    assert sizes["mnist-heldout"] == sizes["fashion-mnist-heldout"] == (50_000, 10_000)
    assert sizes["cifar10-heldout"] == sizes["cifar10-jpeg-heldout"] == (40_000, 10_000)
    assert sizes["svhn-heldout"] == (63_257, 10_000)
    heldout = load_dataset("digits-heldout", tmp_path, CPU)
    whole = load_dataset("digits", tmp_path, CPU)
    assert (len(heldout.train_labels), len(heldout.test_labels)) == (1124, 224)
    both = torch.cat([heldout.train_labels, heldout.test_labels])
    assert torch.equal(both.bincount(), whole.train_labels.bincount())
    (tmp_path / "cifar10-jpeg").mkdir()
    assert dataset_on_disk("cifar10-heldout", tmp_path) == "cifar10-jpeg-heldout"
