"""Run the suite in a cell of the matrix over Python and torch, and write docs/compatibility.md.

``tox exec -e py312-torch214 -- python perf/compatibility.py run py312-torch214`` runs the stages in
that environment, each a run of pytest of its own, and stores what came of them as
``results/compatibility/py312-torch214.json``. ``page`` writes the page from all that is stored;
``make compatibility CELLS="py312-torch214 py313-torch215"`` does both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from junit import junit_outcome
from torch_pair import PairError, check_pair, installed_pair

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "results" / "compatibility"
PAGE = ROOT / "docs" / "compatibility.md"

# The folders of tests, those first that depend on torch most; what lies beside them is run last.
ROOMS = (
    *("models", "check", "training", "engine", "cases"),
    *("storage", "analysis", "report", "commands", "plugin"),
)
BESIDE = (
    "tests/test_spec.py tests/test_locks.py tests/test_package.py tests/test_gpu_stages.py "
    "tests/test_matrix.py tests/test_measurements.py "
    "tests/test_norms_page.py tests/test_reference_page.py tests/test_torture.py"
)

# What each stage gives to pytest. The tests are one for each folder: what has ended is stored.
STAGES = {
    "check": "bench/test_conformance.py",
    "trace": "bench/test_trace.py --bench-tier smoke",
    "smoke": "bench/test_digits.py --bench-tier smoke --bench-baseline digits",
    **{f"tests-{room}": f"tests/{room} -W error" for room in ROOMS},
    "tests-beside": f"{BESIDE} tests/test_workflows.py tests/test_documentation.py -W error",
}
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scipy", "scikit-learn", "pytest", "timm")
Cell = dict[str, Any]


def run_stage(arguments: str, workers: int) -> dict[str, Any]:
    """Run pytest, which shows what it does; return the command and what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        command = [*arguments.split(), *(["-n", str(workers)] if workers > 1 else [])]
        options = [f"--junitxml={junit}", "-q", "-p", "no:cacheprovider"]
        if arguments.startswith("bench"):
            options += ["--bench-results", folder]
        started = datetime.now(UTC)
        start = time.perf_counter()
        python = [sys.executable, "-m", "pytest"]
        ended = subprocess.run([*python, *command, *options], cwd=ROOT, check=False)
        outcome = junit_outcome(junit)
        return {
            "command": " ".join(["pytest", *command]),
            "date": started.date().isoformat(),
            "seconds": round(time.perf_counter() - start),
            "exit_status": ended.returncode,
            "tests": outcome["tests"],
            "passed": outcome.get("passed", 0),
            "failed": {name: reason_of(text) for name, text in outcome.get("failed", {}).items()},
            "skipped": dict(Counter(outcome.get("skipped", {}).values())),
        }


def reason_of(traceback: str) -> str:
    """Return the first line of the error at a traceback's end."""
    lines = [line[1:].strip() for line in traceback.splitlines() if line.startswith("E ")]
    return (lines or [line.strip() for line in traceback.splitlines()] or [""])[0]


def versions() -> dict[str, str]:
    """Return the versions of what this environment has of the packages that matter."""
    found = {each.name.lower(): each.version for each in distributions()}
    return {name: found[name] for name in PACKAGES if name in found}


def run_cell(name: str, stages: Iterable[str], workers: int) -> Cell:
    """Run the stages in this environment and store each as it ends, beside those of earlier calls.

    A pair of torch and torchvision that does not fit is stored as such, and nothing is run.
    """
    file = STORED / f"{name}.json"
    cell: Cell = json.loads(file.read_text()) if file.exists() else {}
    described = {
        "cell": name,
        "python": sys.version.split()[0],
        "machine": machine(),
        "versions": versions(),
    }
    # stages that other versions have passed tell nothing of these
    if {key: cell.get(key) for key in described} != described:
        cell = {**described, "date": datetime.now(UTC).date().isoformat(), "stages": {}}
    try:
        cell["pair"] = check_pair(name, installed_pair())
        cell["fits"] = True
    except PairError as error:
        cell["pair"] = str(error)
        cell["fits"] = False
    store(file, cell)
    if cell["fits"]:
        for stage in stages:
            cell["stages"][stage] = run_stage(STAGES[stage], workers)
            store(file, cell)
    return cell


def store(file: Path, cell: Cell) -> None:
    """Write a cell's results."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(cell, indent=1) + "\n")


def machine() -> str:
    """Return the processor and the number of its cores; torch is not needed for that."""
    from normbench.storage.environment import available_cores, processor

    return f"{processor()['processor']}, {available_cores()} cores"


def page(cells: Sequence[Cell]) -> str:
    """Return the page: versions, what each stage came to, what failed and why, what does not fit.

    One table for each, in markdown; a section without entries is left out.
    """
    working = [cell for cell in cells if cell["fits"]]
    parts = [INTRODUCTION, "## What was installed", versions_table(cells)]
    commands = "\n".join(f"- {stage}: `pytest {given}`" for stage, given in STAGES.items())
    parts += ["## What was run", stages_table(working), f"The stages:\n\n{commands}"]
    left_out = [
        (c["cell"], [stage for stage in STAGES if stage not in c["stages"]]) for c in working
    ]
    if lines := [f"- `{cell}`: {', '.join(stages)}" for cell, stages in left_out if stages]:
        parts += ["## What was not run, for want of time", "\n".join(lines)]
    failed = [
        f"- `{cell['cell']}`, {stage}: `{name}`: {reason}"
        for cell in working
        for stage, told in cell["stages"].items()
        for name, reason in told["failed"].items()
    ]
    parts += ["## What failed", "\n".join(failed) if failed else "Nothing."]
    if unfit := [cell for cell in cells if not cell["fits"]]:
        parts += ["## Pairs that do not fit", *(f"> {cell['pair']}" for cell in unfit)]
    skipped = Counter[str]()
    for cell in working:
        for told in cell["stages"].values():
            skipped.update(told["skipped"])
    if skipped:
        reasons = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
        lines = "\n".join(f"- {number}: {reason}" for reason, number in reasons)
        parts += ["## What was skipped", f"Over all cells, with pytest's reason:\n\n{lines}"]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """# Which versions of Python and torch the suite was run on

`tox` has an environment for each of Python 3.11, 3.12 and 3.13 with each of torch 2.11 to 2.15 and
its torchvision. This page tells which of them were really run, on one machine, and what came of it.
It is written by `make compatibility` from `results/compatibility`:

<!-- not run: makes environments with torch, and takes an hour and more -->
```sh
tox -e py312-torch214                                         # the smoke tier in one environment
tox -e py312-torch214 -- bench -m mnist -n 4                  # or what you give to pytest
make compatibility CELLS="py311-torch211 py313-torch215"      # check, traces, smoke tier and tests
```

Seconds are wall-clock time on a machine that did other work as well: they are no measurement of
speed."""


def versions_table(cells: Sequence[Cell]) -> str:
    """Return a row for each cell with what was installed."""
    names = [name for name in PACKAGES if any(name in cell["versions"] for cell in cells)]
    rows = [
        [
            *(f"`{cell['cell']}`", cell["python"]),
            *(cell["versions"].get(name, "") for name in names),
            "fit" if cell["fits"] else "do not fit",
        ]
        for cell in cells
    ]
    table = markdown(["environment", "Python", *names, "torch and torchvision"], rows)
    machines = sorted({cell["machine"] for cell in cells})
    return f"{table}\n\nMachine: {'; '.join(machines)}."


def stages_table(cells: Sequence[Cell]) -> str:
    """Return a row for each cell and stage with its counts."""
    rows, order = [], list(STAGES)
    for cell in cells:
        for stage, told in sorted(cell["stages"].items(), key=lambda item: order.index(item[0])):
            counts = [told["passed"], len(told["failed"]), sum(told["skipped"].values())]
            if told["tests"] is None:
                counts = [f"ended with exit status {told['exit_status']}", "", ""]
            row = [f"`{cell['cell']}`", stage, told["date"], told["seconds"]]
            rows.append([*row, *counts])
    headings = ["environment", "stage", "date", "seconds", "passed", "failed", "skipped"]
    return markdown(headings, rows)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def stored_cells(folder: Path) -> list[Cell]:
    """Return the stored cells, by torch and then Python."""
    cells = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    return sorted(cells, key=lambda cell: (cell["cell"].partition("-")[2], cell["cell"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a cell's stages, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the stages in this environment")
    run.add_argument("cell", help="the environment's name, such as py312-torch214")
    run.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    run.add_argument("--workers", type=int, default=2, help="of pytest-xdist; default 2")
    commands.add_parser("page", help="write docs/compatibility.md")
    options = parser.parse_args(arguments)
    if options.command == "page":
        PAGE.write_text(page(stored_cells(STORED)))
        print(os.path.relpath(PAGE))
        return 0
    cell = run_cell(options.cell, options.stage, options.workers)
    print(cell["pair"])
    return int(not cell["fits"] or any(told["exit_status"] for told in cell["stages"].values()))


if __name__ == "__main__":
    sys.exit(main())
