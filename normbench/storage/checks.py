"""What a session's checks have found: a file each, written by the process that checked."""

import hashlib
import json
from pathlib import Path

from normbench.check.properties import Checked
from normbench.storage.documents import read_made
from normbench.storage.files import write_atomic


def store_check(session: Path, checked: Checked) -> None:
    """Write what a check has found into a session's folder, in place of an earlier one."""
    folder = session / "checks"
    folder.mkdir(exist_ok=True)
    # a user's norm may be called what no file can be
    digest = hashlib.sha256(checked.subject.encode()).hexdigest()[:12]
    text = json.dumps(checked.to_dict(), indent=1)
    write_atomic(folder / f"{checked.kind}-{digest}.json", f"{text}\n")


def read_checks(session: Path) -> tuple[Checked, ...]:
    """Return what the session's checks have found, norms first; raises ValueError for damage."""
    found = [
        read_made(file, Checked.of_dict) for file in sorted((session / "checks").glob("*.json"))
    ]
    kinds = ("norm", "regularizer", "network")
    return tuple(sorted(found, key=lambda checked: (kinds.index(checked.kind), checked.subject)))
