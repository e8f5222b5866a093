"""Published figures: the rows of a table in CSV, by the configurations that they are of."""

import csv
from pathlib import Path

from normbench.cases.case import Configuration, Published
from normbench.models.regularizers import REGULARIZERS

NUMBERS = ("batch_size", "test_accuracy")
COLUMNS = ("norm", *NUMBERS, "table")


def published_figures(file: Path, tolerance: float) -> dict[Configuration, Published]:
    """Read the figures of a table; of two rows for one configuration the better one counts.

    Accuracies are in percent there; lines that begin with # are comments. A column that is called
    as a regularizer is, such as l1, has its strength; without one it is 0. Raises ValueError where
    the file cannot be read, or is no such table.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"{error}") from error
    table = csv.DictReader(line for line in lines if not line.startswith("#"))
    if lacking := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
        raise ValueError(
            f"no column {', '.join(lacking)}; expected the columns {', '.join(COLUMNS)}"
        )
    strengths = [n for n in table.fieldnames or () if n in REGULARIZERS or ":" in n]
    numbers = (*strengths, *NUMBERS)
    figures: dict[Configuration, Published] = {}
    for number, row in enumerate(table, start=1):
        try:
            values = {name: float(row[name]) for name in strengths}
            size = int(row["batch_size"])
            key = Configuration.of_values({**values, "norm": row["norm"], "batch_size": size})
            figure = Published(float(row["test_accuracy"]) / 100, tolerance, row["table"])
        except (TypeError, ValueError) as error:
            found = ", ".join(f"{name} = {row[name] or ''!r}" for name in numbers)
            raise ValueError(f"row {number} has {found}; expected a number for each") from error
        if key not in figures or figures[key].test_accuracy < figure.test_accuracy:
            figures[key] = figure
    return figures
