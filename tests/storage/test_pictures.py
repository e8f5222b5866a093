"""The images of a session's report: kept by data set, and left out where they are damaged."""

import io
from pathlib import Path

import numpy as np
import pytest

from normbench.storage.pictures import StoredPictures, read_pictures, store_pictures

GREY = StoredPictures(
    np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8),
    tuple(range(100, 120)),
    tuple(n % 10 for n in range(20)),
)
COLOURED = StoredPictures(np.full((1, 32, 32, 3), 7, dtype=np.uint8), (9_999,), (3,))


def test_pictures_are_kept_by_data_set(tmp_path: Path) -> None:
    store_pictures(tmp_path, "digits", GREY)
    store_pictures(tmp_path, "cifar10-jpeg", COLOURED)
    read = read_pictures(tmp_path)
    assert set(read) == {"digits", "cifar10-jpeg"}
    for name, stored in (("digits", GREY), ("cifar10-jpeg", COLOURED)):
        np.testing.assert_array_equal(read[name].images, stored.images)
        assert read[name].images.dtype == np.uint8
        assert (read[name].indices, read[name].labels) == (stored.indices, stored.labels)


def test_pictures_of_ones_own_data_sets_are_kept_whatever_these_are_called(tmp_path: Path) -> None:
    names = {"folder:a/b", "folder:a_b", "/abs/" + 300 * "long/", "mypkg.data:load", "größe"}
    for name in names:
        store_pictures(tmp_path, name, COLOURED)
    assert set(read_pictures(tmp_path)) == names
    assert all(file.parent == tmp_path / "pictures" for file in tmp_path.rglob("*.npz"))


def test_older_pictures_are_known_by_their_files_name(tmp_path: Path) -> None:
    store_pictures(tmp_path, "digits", GREY)
    file = tmp_path / "pictures" / "digits.npz"
    with np.load(file) as stored:
        older = {name: stored[name] for name in ("images", "indices", "labels")}
    np.savez(file, **older)
    assert set(read_pictures(tmp_path)) == {"digits"}


def test_a_folder_without_pictures_has_none(tmp_path: Path) -> None:
    assert read_pictures(tmp_path) == {}


def saved(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # an object that only pickle can keep
    return file.getvalue()


def one_array() -> bytes:
    file = io.BytesIO()
    np.save(file, GREY.images)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pictures",
        saved(images=np.zeros((1, 8, 8, 1)), indices=np.array([1])),
        saved(images=np.array([object()]), indices=np.array([1]), labels=np.array([1])),
        one_array(),
    ],
    ids=["empty", "text", "without labels", "pickled", "one array"],
)
def test_a_file_that_holds_something_else_is_left_out(tmp_path: Path, content: bytes) -> None:
    store_pictures(tmp_path, "cifar10-jpeg", COLOURED)
    (tmp_path / "pictures" / "digits.npz").write_bytes(content)
    assert set(read_pictures(tmp_path)) == {"cifar10-jpeg"}


def test_a_damaged_file_is_left_out_wherever_the_damage_is(tmp_path: Path) -> None:
    store_pictures(tmp_path, "digits", GREY)
    file = tmp_path / "pictures" / "digits.npz"
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place])
        assert read_pictures(tmp_path) == {}, f"cut off at {place}"
        flipped = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        file.write_bytes(flipped)
        for read in read_pictures(tmp_path).values():
            # the damage was where nothing is kept, such as the time of a file
            np.testing.assert_array_equal(read.images, GREY.images)
