"""Files that are seen whole or not at all."""

import os
from pathlib import Path


def write_atomic(file: Path, text: str) -> None:
    """Write ``text`` such that a reader, or a crash, sees the old file or the new one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
