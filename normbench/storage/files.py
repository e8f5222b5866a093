"""Files that are seen whole or not at all."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def write_atomic(file: Path, text: str | Iterable[str]) -> None:
    """Write ``text`` such that a reader, or a crash, sees the old file or the new one.

    A text that is too long to be held comes in parts.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as written:
            written.writelines((text,) if isinstance(text, str) else text)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_if_possible(file: Path) -> None:
    """Remove what is of no use any more; where it cannot be, as in a read-only folder, it stays."""
    with suppress(OSError):
        file.unlink()


def remove_unnamed(folder: Path) -> None:
    """Remove what processes that were killed had written, and not given its name yet."""
    for file in folder.rglob(".*"):
        if re.fullmatch(r"\..+\.[0-9]+", file.name):
            remove_if_possible(file)
