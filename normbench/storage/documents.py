"""Documents as pydantic models: session.json, and what workers will run.

A document that normbench wrote may have fields that this version does not know: they are kept and
ignored.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from normbench.cases.case import NO_TARGET, Case, Claim, Contrast, MeansCount, Published
from normbench.results import CaseVerdict, ClaimVerdict, Outcome
from normbench.spec import RunSpec, with_regularizer
from normbench.training.datasets import Dataset, find_dataset, learn_datasets

SESSION_SCHEMA = 3  # 2 had L1 and L2 in place of a regularizer's name

Status = Literal["running", "finished", "interrupted"]


class Document(BaseModel):
    """Something that normbench wrote."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"


D = TypeVar("D", bound=Document)
T = TypeVar("T")


def of_known_dataset(spec: RunSpec) -> RunSpec:
    """Return the spec; raises ValueError for a data set of which nothing is known."""
    try:
        find_dataset(spec.dataset)
    except ValueError as error:
        raise ValueError(f"{error}; another version of normbench may know it") from error
    return spec


# The facts of the data sets that a document's specs name, by their names. They stand before the
# specs in a document, which are read with what these tell.
StoredDatasets = Annotated[dict[str, Dataset], AfterValidator(learn_datasets)]
StoredSpec = Annotated[RunSpec, AfterValidator(of_known_dataset)]


class StoredCase(Document):
    """A case, and, once it is over, its verdict with the figures of the runs that ended well.

    ``runs`` is how many were trained; without any, the figures are of rows that were taken from an
    earlier session. ``target`` is null where there is none. ``seeds`` is the number of runs asked
    for, of which the last ``confirming`` were not planned, but confirm what looked worse than the
    baseline. ``test_accuracy`` is the mean, a fraction; ``margin_of_error`` is half a 95 %
    interval, null where the variance over the seeds is not known. ``reason`` says why runs ended
    badly, or why the case was skipped.
    """

    grid: str
    tier: str
    spec: StoredSpec
    target: float | None
    seeds: int = 1
    confirming: int = 0
    least: int = 1
    published: Published | None = None
    verdict: CaseVerdict | None = None
    runs: int = 0
    test_accuracy: float | None = None
    margin_of_error: float | None = None
    reason: str = ""

    @classmethod
    def of(cls, case: Case, **found: Any) -> "StoredCase":
        return cls(
            grid=case.grid,
            tier=case.tier,
            spec=case.spec,
            target=case.target if case.has_target else None,
            seeds=case.seeds,
            least=case.least,
            published=case.published,
            **found,
        )

    @property
    def case(self) -> Case:
        return Case(
            self.grid,
            self.tier,
            self.spec,
            NO_TARGET if self.target is None else self.target,
            self.published,
            self.seeds,
            self.least,
        )


class StoredContrast(Document):
    """A contrast of two cases, known by their ids; ``high`` is null where there is no bound."""

    first: str
    second: str
    low: float
    high: float | None = None


class StoredCount(Document):
    """A claimed number of means, and the number ``found`` once the claim is judged."""

    norm: str
    images: int
    channels: int
    means: int
    found: int | None = None


class StoredClaim(Document):
    """A claim, and its verdict once it is judged."""

    name: str
    statement: str
    source: str
    tier: str
    expected: tuple[ClaimVerdict, ...]
    seeds: int = 0
    contrasts: tuple[StoredContrast, ...] = ()
    counts: tuple[StoredCount, ...] = ()
    verdict: ClaimVerdict | None = None

    @model_validator(mode="after")
    def _with_runs(self) -> Self:
        if self.contrasts and self.seeds < 1:
            raise ValueError(f"seeds = {self.seeds}: expected 1 or larger of a claim on contrasts")
        return self

    @classmethod
    def of(
        cls,
        claim: Claim,
        verdict: ClaimVerdict | None = None,
        found: Mapping[MeansCount, int] | None = None,
    ) -> "StoredClaim":
        return cls(
            name=claim.name,
            statement=claim.statement,
            source=claim.source,
            tier=claim.tier,
            expected=claim.expected,
            seeds=claim.seeds,
            contrasts=tuple(map(_stored_contrast, claim.contrasts)),
            counts=tuple(
                StoredCount(
                    norm=count.norm,
                    images=count.images,
                    channels=count.channels,
                    means=count.means,
                    found=(found or {}).get(count),
                )
                for count in claim.counts
            ),
            verdict=verdict,
        )

    def claim(self, cases: Mapping[str, Case]) -> Claim:
        """Return the claim; ``cases`` are the session's, by id."""
        return Claim(
            name=self.name,
            statement=self.statement,
            source=self.source,
            tier=self.tier,
            expected=self.expected,
            seeds=self.seeds,
            contrasts=tuple(
                Contrast(
                    cases[c.first], cases[c.second], c.low, math.inf if c.high is None else c.high
                )
                for c in self.contrasts
            ),
            counts=tuple(MeansCount(c.norm, c.images, c.channels, c.means) for c in self.counts),
        )

    @property
    def found(self) -> dict[MeansCount, int]:
        """The numbers of means that were found, by what was claimed."""
        return {
            MeansCount(c.norm, c.images, c.channels, c.means): c.found
            for c in self.counts
            if c.found is not None
        }


def _stored_contrast(contrast: Contrast) -> StoredContrast:
    return StoredContrast(
        first=contrast.first.id,
        second=contrast.second.id,
        low=contrast.low,
        high=None if math.isinf(contrast.high) else contrast.high,
    )


class StoredVariance(Document):
    """The variance of one run, and the degrees of freedom that it is known with."""

    value: float
    degrees_of_freedom: float


class StoredComparedCase(Document):
    """A case beside its baseline: accuracies of both, fractions, and the outcome."""

    spec: StoredSpec
    outcome: Outcome
    before: tuple[float, ...] = ()
    now: tuple[float, ...] = ()
    variance: StoredVariance | None = None
    minimum_effect: float = 0.0
    adjusted_p: float | None = None
    reason: str = ""
    other_code: bool = False

    @field_validator("outcome", mode="before")
    @classmethod
    def _of_an_older_version(cls, outcome: Any) -> Any:
        # it was said of whatever was neither worse nor better, however few its runs
        return Outcome.UNDECIDED if outcome == "no difference" else outcome


class StoredComparison(Document):
    """A session beside a baseline; ``speed`` is the ratio of images per second, now to then.

    ``elsewhere`` says that a baseline was made on another machine.
    """

    baseline: str
    speed: float | None = None
    elsewhere: bool = False
    idle: tuple[str, ...] = ()
    cases: tuple[StoredComparedCase, ...] = ()


class SessionDocument(Document):
    """session.json: where and how a session ran, what it was to run, and what came of it.

    ``planted`` names the fault that --bench-plant has planted; empty without one. ``datasets`` are
    the facts of the data sets, with the fingerprints of those that runs were trained on; older
    sessions have none, and built-in data sets alone. ``whole`` names all cases of which a shard
    has a part, in the order of their grids; empty for a session of all.
    """

    schema_version: Literal[2, 3] = Field(3, alias="schema")
    session: str
    status: Status
    started: str
    ended: str | None = None
    seconds: float
    resumed: int = 0
    workers: int
    planted: str = ""
    environment: dict[str, Any]
    options: dict[str, Any]
    datasets: StoredDatasets = Field(default_factory=dict)
    cases: tuple[StoredCase, ...] = ()
    claims: tuple[StoredClaim, ...] = ()
    comparison: StoredComparison | None = None
    whole: tuple[str, ...] = ()


class Selection(Document):
    """What the collected tests will ask for; ``error`` says why nothing can be run.

    ``tests`` has the tests of single cases, by their ids. ``elsewhere`` are the cases of the other
    shards, where this is one, and ``whole`` the names of all, in the order of their grids. Workers
    leave it to the controller, which never collects.
    """

    datasets: StoredDatasets = Field(default_factory=dict)
    cases: tuple[StoredCase, ...] = ()
    claims: tuple[StoredClaim, ...] = ()
    tests: dict[str, str] = Field(default_factory=dict)
    elsewhere: tuple[StoredCase, ...] = ()
    whole: tuple[str, ...] = ()
    error: str = ""


def read_json(file: Path) -> dict[str, Any]:
    """Return the object that a file holds; raises ValueError, in one line, for anything else."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"), object_hook=with_regularizer)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: it is not a text in UTF-8") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file}: it is not JSON: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{file}: expected a JSON object, came {_short(document)}")
    return document


def read_made(file: Path, make: Callable[[Mapping[str, Any]], T]) -> T:
    """Return what ``make`` makes of a file's object; its ValueError is told with the file."""
    values = read_json(file)
    try:
        return make(values)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def require_schema(values: Mapping[str, Any], file: Path, *known: int) -> int:
    """Return the document's schema; raises ValueError, in one line, for one that is not known."""
    if "schema" not in values:
        raise ValueError(f"{file}: schema is missing")
    schema = values["schema"]
    if type(schema) is int and schema in known:
        return schema
    later = isinstance(schema, int) and schema > max(known)
    upgrade = "; a later version of normbench wrote it: upgrade normbench" if later else ""
    *others, last = map(str, known)
    reads = f"{', '.join(others)} and {last}" if others else last
    raise ValueError(f"{file}: its schema is {schema!r}, and this version reads {reads}{upgrade}")


# More of them are of one cause, and would hide it.
TOLD_PROBLEMS = 10


def validated(kind: type[D], values: Mapping[str, Any], file: Path) -> D:
    """Return the document; raises ValueError, in one line, that names the places that are wrong."""
    try:
        # of JSON, a strict reader takes lists for tuples and objects for dataclasses
        return kind.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problems = list(map(_problem, error.errors(include_url=False)))
        told = problems[:TOLD_PROBLEMS]
        if left_out := problems[TOLD_PROBLEMS:]:
            told.append(f"and {len(left_out)} more, the last of which is {left_out[-1]}")
        raise ValueError(f"{file}: {'; '.join(told)}") from error


def _problem(problem: Any) -> str:
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in problem["loc"]).lstrip(".")
    if problem["type"] == "missing":
        return f"{place} is missing"
    if problem["type"] == "value_error":
        return f"{place}: {problem['ctx']['error']}"
    if problem["type"] == "too_short":
        return f"{place} is empty: expected at least {problem['ctx']['min_length']} entry"
    expected = {
        "string_type": "a text",
        "float_type": "a number",
        "float_parsing": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "int_type": "a whole number",
        "int_parsing": "a whole number",
        "int_from_float": "a whole number",
        "dict_type": "an object",
        "tuple_type": "a list",
        "list_type": "a list",
        "model_type": "an object",
        "dataclass_type": "an object",
    }.get(problem["type"])
    if expected is None and (choices := (problem.get("ctx") or {}).get("expected")):
        expected = f"one of {choices}"
    came = _short(problem["input"])
    return f"{place}: expected {expected or 'another value'}, came {came}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
