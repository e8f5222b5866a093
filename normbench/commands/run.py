"""Run the suite out of the installed package, with pytest's own arguments.

The folder where it is started is pytest's root, can be imported from, and keeps the results.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from normbench.cases.case import OWN

HELP = "run the suite, with pytest's arguments and the options of --bench-..."
SETTINGS = Path(__file__).with_name("pytest.ini")
SUITE = Path(__file__).parents[1] / "bench"
# The files of the suite that run what --bench-cases names.
OF_OWN_FILES = ("test_own_cases.py", "test_claims.py")


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "arguments", metavar="ARGUMENT", nargs="*", help="given to pytest as they are"
    )


def suite_settings(root: Path) -> list[str]:
    """Return the arguments that have pytest run the packaged suite, and nothing of a project."""
    return [
        *("-c", str(SETTINGS), "--rootdir", str(root), "--noconftest"),
        *("-p", "normbench.plugin", "-p", "normbench.commands.run_plugin"),
    ]


def pytest_arguments(arguments: Sequence[str], root: Path) -> list[str]:
    """Return the arguments of pytest that run the suite with ``root`` as its root.

    The settings and the conftest.py of a project that lies there take no part. With a cases file
    of the user's own, and no tier, that file is run alone.
    """
    given = [argument.partition("=")[0] for argument in arguments]
    own = "--bench-cases" in given and "--bench-tier" not in given
    others = [file for file in sorted(SUITE.glob("test_*.py")) if file.name not in OF_OWN_FILES]
    return [
        *suite_settings(root),
        *(("--bench-tier", OWN) if own else ()),
        # not by naming the files that are left: pytest would leave their names out of its ids
        *(f"--ignore={file}" for file in others if own),
        str(SUITE),
        *arguments,
    ]


def main(arguments: Sequence[str]) -> int:
    """Replace this process by pytest's, or wait for it; return its exit code."""
    root = Path.cwd()
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "pytest", *pytest_arguments(arguments, root)]
    if os.name == "posix":
        sys.stdout.flush()
        os.execve(sys.executable, command, environment)
    return subprocess.run(command, env=environment, check=False).returncode
