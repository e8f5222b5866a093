"""Claims: statements about norms as data, and what the runs say of each."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normbench.cases.case import TIERS, Case, GridOptions, configuration_key
from normbench.cases.checked_toml import CasesError, CheckedTable, checked_number, read_toml
from normbench.cases.grids import load_cases
from normbench.models.norms import NormSite, norm_factory
from normbench.results import JUDGED, ClaimVerdict

# The name of the table of claims; the grids of the runs that claims stand on begin with it.
CLAIMS = "claims"

AXES = ("norm", "l1", "l2", "batch_size")
COMMON_KEYS = {"name", "statement", "source", "tier"}


@dataclass(frozen=True)
class Contrast:
    """A claim that the accuracy of ``first`` less that of ``second`` lies between two bounds.

    The bounds are fractions, ``high`` infinite where the claim sets none.
    """

    first: Case
    second: Case
    low: float
    high: float = math.inf

    @property
    def subject(self) -> str:
        return f"{self.first.spec.label} less {self.second.spec.label}"

    @property
    def says(self) -> str:
        if math.isinf(self.high):
            return f"more than {100 * self.low:g}"
        return f"within ±{100 * self.high:g}"


@dataclass(frozen=True)
class MeansCount:
    """A claim that ``norm`` computes so many means for a batch of ``images`` images."""

    norm: str
    images: int
    channels: int
    means: int


@dataclass(frozen=True)
class Claim:
    """A statement with its source, and the contrasts or counts that it stands or falls with.

    ``expected`` holds the verdicts that are no surprise: those on record, or every one.
    """

    name: str
    statement: str
    source: str
    tier: str
    expected: tuple[ClaimVerdict, ...]
    seeds: int = 0
    contrasts: tuple[Contrast, ...] = ()
    counts: tuple[MeansCount, ...] = ()

    @property
    def cases(self) -> list[Case]:
        """The configurations that the claim needs runs of."""
        sides = (side for c in self.contrasts for side in (c.first, c.second))
        return list({case.id: case for case in sides}.values())


def is_claims_file(file: Path) -> bool:
    """Tell a file of claims from one of grids; raises CasesError where it cannot be read."""
    return "claim" in read_toml(file)


def load_claims(file: Path, grids: Mapping[str, Path], options: GridOptions) -> list[Claim]:
    """Return the claims of a file that belong to the chosen tier or a smaller one.

    ``grids`` are the files that claims take their configurations from, by name, whichever tier
    these belong to. Raises CasesError, naming the claim and the key, for whatever is not as
    bench/cases/claims.toml has it, and for a configuration that its grid does not have.
    """
    top = CheckedTable(f"{file}", read_toml(file))
    top.require_keys({"schema", "claim"}, set())
    top.one_of("schema", (1,))
    every_tier = dataclasses.replace(options, tier=TIERS[-1], norms=(), norms_only=False)
    read: dict[str, list[Case]] = {}

    def cases_of(grid: str) -> list[Case]:
        if grid not in read:
            read[grid] = load_cases(grids[grid], every_tier)
        return read[grid]

    claims = [_claim(table, tuple(grids), cases_of, options) for table in top.tables("claim")]
    names = [claim.name for claim in claims]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CasesError(f"{file}: two claims are called {twice!r}; rename one")
    return _sharing_cases([claim for claim in claims if options.includes(claim.tier)])


def _sharing_cases(claims: list[Claim]) -> list[Claim]:
    """Let claims that need the same configuration share a case, of the most seeds among them."""
    most: dict[str, Case] = {}
    for case in (case for claim in claims for case in claim.cases):
        if case.id not in most or most[case.id].seeds < case.seeds:
            most[case.id] = case

    def share(contrast: Contrast) -> Contrast:
        first, second = (most[case.id] for case in (contrast.first, contrast.second))
        return dataclasses.replace(contrast, first=first, second=second)

    return [dataclasses.replace(c, contrasts=tuple(map(share, c.contrasts))) for c in claims]


def _claim(
    table: CheckedTable,
    grids: tuple[str, ...],
    cases_of: Callable[[str], list[Case]],
    options: GridOptions,
) -> Claim:
    table.require_keys(
        required=COMMON_KEYS,
        optional={"expected", "grid", "seeds", "contrast", "images", "channels", "means"},
    )
    name = table.text("name")
    table = dataclasses.replace(table, where=f"{table.where} ({name})")
    claim = Claim(
        name=name,
        statement=table.text("statement"),
        source=table.text("source"),
        tier=table.one_of("tier", TIERS),
        expected=_expected(table),
    )
    if "means" in table.values:
        table.require_keys({"images", "channels", "means"}, {"expected", *COMMON_KEYS})
        return dataclasses.replace(claim, counts=tuple(_counts(table)))
    table.require_keys({"grid", "seeds", "contrast"}, {"expected", *COMMON_KEYS})
    grid = table.one_of("grid", grids)
    seeds = max(table.number("seeds", int, low=2), 0 if options.sequential else options.seeds)
    cases = {
        configuration_key(case.spec): dataclasses.replace(
            case, grid=f"{CLAIMS}-{grid}", tier=claim.tier, seeds=seeds
        )
        for case in cases_of(grid)
    }
    contrasts = [c for part in table.tables("contrast") for c in _contrasts(part, grid, cases)]
    return dataclasses.replace(claim, seeds=seeds, contrasts=tuple(contrasts))


def _expected(table: CheckedTable) -> tuple[ClaimVerdict, ...]:
    """Return the verdict on record, or the several of a claim that lies close to its margin."""
    recorded = table.values.get("expected", list(JUDGED))
    values = recorded if isinstance(recorded, list) and recorded else [recorded]
    if wrong := [value for value in values if value not in JUDGED]:
        choices = ", ".join(repr(str(verdict)) for verdict in JUDGED)
        raise CasesError(
            f"{table.where}: expected = {wrong[0]!r}; expected one of {choices}, or a list of them"
        )
    return tuple(map(ClaimVerdict, values))


def _counts(table: CheckedTable) -> Iterator[MeansCount]:
    images = table.number("images", int, low=2)
    channels = table.number("channels", int, low=2)
    for norm, means in table.table("means").values.items():
        count = checked_number(table.where, f"means of {norm}", means, int, low=1)
        try:
            norm_factory(norm)(NormSite("probe", channels, height=2, width=2))
        except ValueError as error:
            raise CasesError(f"{table.where}: {error}") from error
        yield MeansCount(norm, images, channels, count)


def _contrasts(
    table: CheckedTable, grid: str, cases: Mapping[tuple[str, float, float, int], Case]
) -> Iterator[Contrast]:
    """Yield a contrast for each configuration of ``at`` and each ``first`` and ``second``."""
    table.require_keys({"first", "second"}, {"at", "more_than", "within"})
    if "more_than" in table.values and "within" in table.values:
        raise CasesError(f"{table.where}: expected more_than or within, not both")
    if "within" in table.values:
        high = table.number("within", float, low=0, high=100) / 100
        low = -high
    else:
        low = table.number("more_than", float, low=-100, high=100, default=0.0) / 100
        high = math.inf

    def case(*parts: Mapping[str, Any]) -> Case:
        values: dict[str, Any] = {"l1": 0.0, "l2": 0.0}
        for part in parts:
            values |= part
        if missing := [axis for axis in AXES if axis not in values]:
            raise CasesError(f"{table.where}: {', '.join(missing)} is missing on one side")
        key = tuple(values[axis] for axis in AXES)
        found = next((c for k, c in cases.items() if k == key), None)
        if found is None:
            spelled = ", ".join(f"{axis} = {values[axis]!r}" for axis in AXES)
            raise CasesError(f"{table.where}: the grid {grid!r} has no case with {spelled}")
        return found

    shared = list(_product(table, "at")) if "at" in table.values else [{}]
    firsts, seconds = list(_product(table, "first")), list(_product(table, "second"))
    for at, first, second in itertools.product(shared, firsts, seconds):
        yield Contrast(case(at, first), case(at, second), low, high)


def _product(table: CheckedTable, key: str) -> Iterator[dict[str, Any]]:
    """Yield the product of a table's values, each of which may be a list."""
    part = table.table(key)
    part.require_keys(set(), set(AXES))
    values = [v if isinstance(v, list) else [v] for v in part.values.values()]
    for chosen in itertools.product(*values):
        yield dict(zip(part.values, chosen, strict=True))
