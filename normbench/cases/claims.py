"""Claims: statements about norms as data, and the configurations that they need runs of."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from normbench.cases.case import (
    CLAIMS,
    TIERS,
    Case,
    Claim,
    Configuration,
    Contrast,
    GridOptions,
    MeansCount,
)
from normbench.cases.claims_file import (
    ClaimsContext,
    ClaimsFile,
    ContrastClaim,
    ContrastTable,
    MeansClaim,
)
from normbench.cases.errors import CasesError, one_line, read_toml, validated
from normbench.cases.grids import check_fitting, load_cases
from normbench.results import ClaimVerdict


def is_claims_file(file: Path) -> bool:
    """Tell a file of claims from one of grids; raises CasesError where it cannot be read."""
    return "claim" in read_toml(file)


def load_claims(file: Path, grids: Mapping[str, Path], options: GridOptions) -> list[Claim]:
    """Return the claims of a file that belong to the chosen tier or a smaller one.

    ``grids`` are the files that claims take their configurations from, by name, whichever tier
    these belong to. Raises CasesError, naming the claim and the place, for everything that is not
    as claims_file.ClaimsFile has it, and for configurations that their grids do not have.
    """
    raw = read_toml(file)
    every_tier = dataclasses.replace(options, tier=TIERS[-1], norms_only=False)
    load = functools.partial(load_cases, options=every_tier, fitting=False)
    cases = {
        grid: {Configuration.of(case.spec): case for case in load(grids[grid])}
        for grid in _named(raw, grids)
    }
    content = validated(ClaimsFile, file, raw, ClaimsContext(tuple(grids), cases))
    claims = [_claim(table, cases, options) for table in content.claim]
    included = [claim for claim in claims if options.includes(claim.tier)]
    _require_fitting_norms(file, included)
    return _sharing_cases(included)


def _require_fitting_norms(file: Path, claims: Iterable[Claim]) -> None:
    for claim in claims:
        for case in claim.cases:
            try:
                spec = case.spec
                check_fitting(spec.network, spec.norm, spec.dropout, spec.dataset)
            except ValueError as error:
                raise CasesError(one_line(f"{file}: claim {claim.name!r}: {error}")) from error


def _named(raw: Mapping[str, Any], grids: Mapping[str, Path]) -> list[str]:
    """Return the grids that the claims name, as far as these are written as they should be."""
    tables = raw.get("claim")
    listed = tables if isinstance(tables, list) else []
    named = [table.get("grid") for table in listed if isinstance(table, dict)]
    return [grid for grid in grids if grid in named]


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
    table: ContrastClaim | MeansClaim,
    cases: Mapping[str, Mapping[Configuration, Case]],
    options: GridOptions,
) -> Claim:
    claim = Claim(
        name=table.name,
        statement=table.statement,
        source=table.source,
        tier=table.tier,
        expected=tuple(map(ClaimVerdict, table.expected)),
    )
    if isinstance(table, MeansClaim):
        counts = (
            MeansCount(norm, table.images, table.channels, means)
            for norm, means in table.means.items()
        )
        return dataclasses.replace(claim, counts=tuple(counts))
    seeds = max(table.seeds, 0 if options.sequential else options.seeds)
    grid = f"{CLAIMS}-{table.grid}"
    claimed = {
        configuration: dataclasses.replace(
            case, grid=grid, tier=table.tier, seeds=seeds, least=seeds
        )
        for configuration, case in cases[table.grid].items()
    }
    contrasts = (c for contrast in table.contrast for c in _contrasts(contrast, claimed))
    return dataclasses.replace(claim, seeds=seeds, contrasts=tuple(contrasts))


def _contrasts(table: ContrastTable, cases: Mapping[Configuration, Case]) -> Iterator[Contrast]:
    if table.within is not None:
        low, high = -table.within / 100, table.within / 100
    else:
        low, high = (table.more_than or 0.0) / 100, math.inf
    for first, second in table.pairs:
        yield Contrast(cases[first], cases[second], low, high)
