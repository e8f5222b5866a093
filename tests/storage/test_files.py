"""Files that are seen whole or not at all."""

from pathlib import Path

import pytest

from normbench.storage.files import write_atomic


def test_what_cannot_be_written_whole_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomic(file, "old")
    # a lone surrogate, which UTF-8 has no bytes for, stands for a disk that is full
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        write_atomic(file, "new \udc80")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert file.read_text(encoding="utf-8") == "old"
