"""The tables that the programs of this folder write."""

import json
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from normbench.storage.environment import available_cores, processor


def write_rows(rows: list[dict[str, Any]], name: str, folder: Path) -> None:
    """Show the rows as a table with the machine, and keep them as ``name.md`` and ``name.json``."""
    table = tabulate(rows, headers="keys", tablefmt="pipe", floatfmt=",.1f")
    machine = f"{processor()['processor']}, {available_cores()} cores, torch {torch.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(f"{machine}\n\n{table}\n")
    (folder / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n{machine}\n\n{table}")
