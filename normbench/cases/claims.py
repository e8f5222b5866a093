"""Claims: statements about norms as data, and what the runs say of each."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from scipy.sparse import csgraph

from normbench.analysis.statistics import Estimate, Variance
from normbench.cases.checked_toml import CasesError, CheckedTable, checked_number, read_toml
from normbench.cases.grids import TIERS, Case, GridOptions, configuration_key, load_cases
from normbench.models.norms import NormSite, norm_factory
from normbench.results import RunResult
from normbench.spec import RunSpec
from normbench.storage.baseline import variances

# The name of the table of claims; the grids of the runs that claims stand on begin with it.
CLAIMS = "claims"

# The one-sided level of each verdict: of 100 claims that are just not so, one may come out wrongly.
LEVEL = 0.01

AXES = ("norm", "l1", "l2", "batch_size")
COMMON_KEYS = {"name", "statement", "source", "tier"}


class ClaimVerdict(StrEnum):
    """What the runs say of a claim."""

    HOLDS = "holds"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOT_JUDGED = "not judged"


# What a test may come out as where no verdict has been recorded yet.
JUDGED = (ClaimVerdict.HOLDS, ClaimVerdict.REFUTED, ClaimVerdict.UNDECIDED)


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


@dataclass(frozen=True)
class Evidence:
    """What was found of one contrast or count: ``estimate`` of a difference, or a text."""

    subject: str
    says: str
    verdict: ClaimVerdict
    estimate: Estimate | None = None
    found: str = ""


@dataclass(frozen=True)
class Finding:
    """A claim's verdict, with the evidence, and the reason where there is no verdict."""

    claim: Claim
    verdict: ClaimVerdict
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""

    @property
    def surprising(self) -> bool:
        return self.verdict not in self.claim.expected


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
            means_computed(norm, images, channels)
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


def judge(claim: Claim, results: Mapping[str, RunResult]) -> Finding:
    """Return what the runs say of the claim; ``results`` are a session's, by their specs' keys.

    A claim holds where each of its contrasts does, each at the level (the intersection-union
    test: Berger, Multiparameter Hypothesis Testing and Acceptance Sampling, 1982), one of
    ``within`` by two one-sided tests (Schuirmann, 1987). It is refuted where one contrast is, at
    its share of the level (Bonferroni), and undecided in between. The variance is that of the
    claim's own runs, so that the verdict does not depend on what else a session ran.
    """
    if not claim.contrasts:
        counted = [_count_evidence(count) for count in claim.counts]
        return Finding(claim, _all_of(counted), tuple(counted))
    samples: dict[RunSpec, list[float]] = {}
    for case in claim.cases:
        specs = case.specs[: claim.seeds]
        runs = [results.get(spec.key) for spec in specs]
        for spec, run in zip(specs, runs, strict=True):
            if run is None or run.status != "ok":
                reason = f"{spec}: {run.status if run else 'was not run'}"
                return Finding(claim, ClaimVerdict.NOT_JUDGED, reason=reason)
        samples[case.spec] = [run.test_accuracy for run in runs if run]
    spread = variances(samples)
    evidence = [
        _contrast_evidence(c, samples, spread, len(claim.contrasts)) for c in claim.contrasts
    ]
    return Finding(claim, _all_of(evidence), tuple(evidence))


def _all_of(evidence: Sequence[Evidence]) -> ClaimVerdict:
    verdicts = {part.verdict for part in evidence}
    order = (ClaimVerdict.REFUTED, ClaimVerdict.UNDECIDED, ClaimVerdict.HOLDS)
    return next(verdict for verdict in order if verdict in verdicts)


def _contrast_evidence(
    contrast: Contrast,
    samples: Mapping[RunSpec, list[float]],
    spread: Mapping[RunSpec, Variance],
    contrasts: int,
) -> Evidence:
    first, second = contrast.first.spec, contrast.second.spec
    estimate = Estimate.difference(samples[first], samples[second], spread[first], spread[second])
    verdict = ClaimVerdict.UNDECIDED
    if max(estimate.p_above(contrast.low), estimate.p_below(contrast.high)) <= LEVEL:
        verdict = ClaimVerdict.HOLDS
    elif min(estimate.p_below(contrast.low), estimate.p_above(contrast.high)) <= LEVEL / contrasts:
        verdict = ClaimVerdict.REFUTED
    return Evidence(contrast.subject, contrast.says, verdict, estimate)


def _count_evidence(count: MeansCount) -> Evidence:
    found = means_computed(count.norm, count.images, count.channels)
    return Evidence(
        f"{count.norm}, {count.images} images x {count.channels} channels",
        f"{count.means} means",
        ClaimVerdict.HOLDS if found == count.means else ClaimVerdict.REFUTED,
        found=f"{found} means",
    )


def means_computed(norm: str, images: int, channels: int) -> int:
    """Count the means that a norm layer computes for a batch in training, by what it does.

    An output depends on all the inputs that its mean is taken over: the elements that are
    connected so, through the layer's Jacobian, share a mean. Raises ValueError for a norm that
    is not known or does not fit.
    """
    height = width = 2
    layer = norm_factory(norm)(NormSite("probe", channels, height, width)).double().train()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, channels, height, width, dtype=torch.float64, generator=generator)
    jacobian = torch.autograd.functional.jacobian(layer, x).reshape(x.numel(), x.numel())
    components, _ = csgraph.connected_components(jacobian.numpy() != 0, directed=False)
    return int(components)
