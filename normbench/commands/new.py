"""Lay a small project of your own: a norm, a regularizer, cases, a test, and a nightly workflow.

DIR is new, or an empty folder. What is laid there is yours to change; its README says how to run
it.
"""

import argparse
import json
from pathlib import Path

HELP = "lay a small project with a norm and a regularizer of your own"

# What is laid; in a checkout, a link to examples/own-project.
TEMPLATE = Path(__file__).parents[1] / "project"
PACKAGE = "mypkg"
# What lies in a project beside the package.
TAKEN = ("tests", "conftest", "results")
LEFT_OUT = ("__pycache__", ".pytest_cache", "results")


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="DIR", type=Path, help="a new or an empty folder")
    command.add_argument(
        "--package",
        metavar="NAME",
        default=PACKAGE,
        help=f"the name of the package that the norm lies in; default {PACKAGE}",
    )


def main(options: argparse.Namespace) -> int:
    from normbench.cases.schema import cases_schema

    folder: Path = options.folder
    require_package(options.package)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} is not empty: expected a new or an empty folder; name another one"
        )
    files = sorted(file for file in TEMPLATE.rglob("*") if file.is_file())
    for file in files:
        place = file.relative_to(TEMPLATE)
        if not set(LEFT_OUT) & set(place.parts):
            named = [options.package if part == PACKAGE else part for part in place.parts]
            write(folder.joinpath(*named), file.read_text(encoding="utf-8"), options.package)
    write(folder / "cases.schema.json", json.dumps(cases_schema(), indent=1) + "\n", PACKAGE)
    print(f"{folder}: a project of your own; its README.md says what lies there. Next, in it:\n")
    print(f"  normbench check {options.package}.norms:RMSNorm2d")
    print("  normbench run --bench-cases cases.toml")
    print("  pytest")
    return 0


def require_package(name: str) -> None:
    """Raise ValueError for what cannot be the name of a package of one's own."""
    import importlib.util
    import keyword

    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"--package {name!r}: expected a name as Python's are, such as my_norms")
    if name in TAKEN:
        raise ValueError(
            f"--package {name!r}: expected another name, as the project has {', '.join(TAKEN)} of "
            "its own"
        )
    if name != PACKAGE and importlib.util.find_spec(name) is not None:
        raise ValueError(
            f"--package {name!r}: Python has a package of that name already; choose another one"
        )


def write(file: Path, text: str, package: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.replace(PACKAGE, package), encoding="utf-8")
