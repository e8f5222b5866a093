"""Cases: grids of specs with their targets, read from TOML and checked before anything runs."""

import csv
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normbench.cases.case import TIERS, Case, GridOptions, Published, configuration_key
from normbench.cases.checked_toml import CasesError, CheckedTable, checked_number, read_toml
from normbench.models.networks import NETWORKS, check_network
from normbench.models.norms import norm_factory
from normbench.spec import RunSpec
from normbench.training.datasets import DATASETS, dataset_on_disk
from normbench.training.recipes import RECIPES


def load_cases(file: Path, options: GridOptions) -> list[Case]:
    """Return the cases of a file whose grids belong to the chosen tier or a smaller one.

    A configuration that stands in several grids is a case of the first of them.
    Raises CasesError, naming the file and the key, for whatever is not as bench/cases has it,
    and for a norm that does not fit the network.
    """
    top = CheckedTable(f"{file}", read_toml(file))
    top.require_keys(
        required={"schema", "tier", "dataset", "network", "recipe", "epochs", "grid", "target"},
        optional={"dropout", "train_images", "seeds", "published", "published_room"},
    )
    top.one_of("schema", (1,))
    tier = top.one_of("tier", TIERS)
    dataset = dataset_on_disk(top.one_of("dataset", tuple(DATASETS)), options.data)
    common = {
        "dataset": dataset,
        "network": top.one_of("network", tuple(NETWORKS)),
        "recipe": top.one_of("recipe", tuple(RECIPES)),
        "epochs": top.number("epochs", int, low=1),
        "dropout": top.number("dropout", float, low=0, high=1, default=0.0),
        "seed": options.first_seed,
    }
    if "train_images" in top.values:
        most = DATASETS[dataset].training_images
        common["train_images"] = top.number("train_images", int, low=1, high=most)
    seeds = top.number("seeds", int, low=1, default=1)
    seeds = options.seeds if options.sequential else max(options.seeds, seeds)
    targets = [_Target.read(table) for table in top.tables("target")]
    published = _published(file, top)
    cases: dict[str, Case] = {}
    for table in top.tables("grid"):
        grid_tier = table.one_of("tier", TIERS) if "tier" in table.values else tier
        for spec in _specs(table, common, options):
            target = next((t for t in targets if t.fits(spec)), None)
            if target is None:
                raise CasesError(f"{file}: no [[target]] fits {spec.label}; add one without keys")
            if options.includes(grid_tier):
                row = published.get(configuration_key(spec))
                case = Case(file.stem, grid_tier, spec, target.test_accuracy, row, seeds)
                cases.setdefault(case.id, case)
    return list(cases.values())


def _norm(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise CasesError(f"{where} = {value!r}; expected a norm's name in quotes")
    try:
        norm_factory(value)
    except ValueError as error:
        raise CasesError(f"{where}: {error}") from error
    return value


def _regularizer(where: str, value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise CasesError(f"{where} = {value!r}; expected a table such as {{ l1 = 0.001 }}")
    CheckedTable(where, value).require_keys(set(), {"l1", "l2"})
    return {
        key: checked_number(where, key, value.get(key, 0), float, low=0) for key in ("l1", "l2")
    }


def _batch_size(where: str, value: Any) -> int:
    return checked_number(where, "a size", value, int, low=1)


def _specs(
    table: CheckedTable, common: Mapping[str, Any], options: GridOptions
) -> Iterator[RunSpec]:
    table.require_keys({"norm", "regularizer", "batch_size"}, {"recipe", "tier"})
    if "recipe" in table.values:
        common = {**common, "recipe": table.one_of("recipe", tuple(RECIPES))}
    norms = options.grid_norms(table.each("norm", _norm))
    regularizers = table.each("regularizer", _regularizer)
    batch_sizes = table.each("batch_size", _batch_size)
    for norm in norms:
        try:
            check_network(common["network"], norm)
        except ValueError as error:
            raise CasesError(f"{table.where}: {error}") from error
    for norm, regularizer, size in itertools.product(norms, regularizers, batch_sizes):
        yield RunSpec(norm=norm, batch_size=size, **regularizer, **common)


@dataclass(frozen=True)
class _Target:
    """A target, and the cases that it fits: those with a listed value under each key it names."""

    test_accuracy: float
    where: Mapping[str, list[Any]]

    @classmethod
    def read(cls, table: CheckedTable) -> "_Target":
        keys = {"norm", "l1", "l2", "batch_size"}
        table.require_keys({"test_accuracy"}, keys)
        accuracy = table.number("test_accuracy", float, low=0, high=100)
        named = {key: table.values[key] for key in sorted(keys & table.values.keys())}
        for key, value in named.items():
            kind = (str,) if key == "norm" else (int, float)
            values = value if isinstance(value, list) else [value]
            if not values or not all(type(v) in kind for v in values):
                raise CasesError(
                    f"{table.where}: {key} = {value!r}; expected "
                    f"{'a name' if key == 'norm' else 'a number'} or a list of them"
                )
        return cls(
            accuracy / 100,
            {key: v if isinstance(v, list) else [v] for key, v in named.items()},
        )

    def fits(self, spec: RunSpec) -> bool:
        return all(getattr(spec, key) in values for key, values in self.where.items())


def _published(file: Path, top: CheckedTable) -> dict[tuple[str, float, float, int], Published]:
    """Read the published figures; of two rows for one configuration the better one counts."""
    if "published" not in top.values:
        return {}
    name = top.text("published")
    tolerance = top.number("published_room", float, low=0, high=100, default=0.0) / 100
    try:
        lines = (file.parent / name).read_text(encoding="utf-8").splitlines()
        rows: dict[tuple[str, float, float, int], Published] = {}
        for row in csv.DictReader(line for line in lines if not line.startswith("#")):
            key = (row["norm"], float(row["l1"]), float(row["l2"]), int(row["batch_size"]))
            figure = Published(float(row["test_accuracy"]) / 100, tolerance, row["table"])
            if key not in rows or rows[key].test_accuracy < figure.test_accuracy:
                rows[key] = figure
    except (OSError, KeyError, ValueError) as error:
        raise CasesError(f"{file}: cannot read the published figures {name}: {error!r}") from error
    return rows
