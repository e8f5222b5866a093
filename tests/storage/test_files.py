"""Files that are seen whole or not at all."""

from pathlib import Path

import pytest

from normbench.storage.files import remove_unnamed, write_atomic


def test_what_cannot_be_written_whole_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomic(file, "old")
    # a lone surrogate, which UTF-8 has no bytes for, stands for a disk that is full
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        write_atomic(file, "new \udc80")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert file.read_text(encoding="utf-8") == "old"


def test_what_a_killed_process_has_not_named_yet_is_removed(tmp_path: Path) -> None:
    kept = ["session.json", ".hidden", "tables/.keep", "tables/a.4711"]
    for name in (*kept, ".session.json.4711", "tables/.digits.csv.12"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_unnamed(tmp_path)
    left = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()}
    assert left == set(kept)
