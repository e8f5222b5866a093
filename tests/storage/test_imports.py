"""What reading costs: modules that a process of its own has imported after it."""

import subprocess
import sys
from pathlib import Path

import pytest

from .stored import GOLDEN

READ_ROWS = """
from pathlib import Path
from normbench.storage.runs import RunStore
assert len(RunStore(Path(sys.argv[1])).results()) == 7
"""
READ_SESSION = """
from pathlib import Path
from normbench.storage.session import read_session
assert len(read_session(Path(sys.argv[1])).results) == 7
"""
COMPARE = """
from pathlib import Path
from normbench.analysis.comparison import compare
from normbench.storage.baseline import find_baseline
one = find_baseline(sys.argv[1], Path())
assert len(compare(one, one).cases) == 5
"""
IMPORT_TRAINER = "import normbench.training.trainer\n"
TO_DRAW = {"pandas", "matplotlib", "jinja2", "PIL", "tabulate"}
TO_TRAIN = {"torchvision", "sklearn", "xdist"}


@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        (READ_ROWS, {"torch", "pydantic", "numpy", "scipy"} | TO_DRAW | TO_TRAIN),
        (READ_SESSION, {"torch", "scipy"} | TO_DRAW | TO_TRAIN),
        (COMPARE, {"torch"} | TO_DRAW | TO_TRAIN),
        (IMPORT_TRAINER, {"pydantic", "scipy"} | TO_DRAW | TO_TRAIN),
    ],
    ids=["rows", "session", "comparison", "trainer"],
)
def test_what_is_not_needed_is_not_imported(code: str, unneeded: set[str], tmp_path: Path) -> None:
    told = "import sys\n" + code + f"print(*sorted({unneeded!r} & sys.modules.keys()))\n"
    process = subprocess.run(
        [sys.executable, "-c", told, str(GOLDEN / "session-2")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == []
