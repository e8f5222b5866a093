"""What a run leaves behind, as objects and as stored rows."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeVar, cast, get_args

from normbench.spec import RunSpec, with_regularizer

SCHEMA = 2  # 1 had L1 and L2 in place of a regularizer's name

# The sizes of weights between which histograms count: four bins a decade, and what lies outside.
WEIGHT_EDGES = tuple(10 ** (quarter / 4) for quarter in range(-24, 5))

T = TypeVar("T")

Status = Literal["ok", "diverged", "crashed", "stalled", "error"]

# The ends that another attempt may better: the run did not come to what its spec decides.
UNFINISHED = ("crashed", "stalled", "error")


class RunFailed(AssertionError):
    """A run that ended without a result was asked for one."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """Losses are mean cross-entropies per image, accuracies fractions, times wall-clock seconds.

    The training figures are taken over the augmented batches as they were trained on: of a recipe
    that selects images, over those alone.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    train_seconds: float
    test_seconds: float


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrongly classified test image; ``confidence`` is the softmax of the predicted class."""

    index: int
    true: int
    predicted: int
    confidence: float


@dataclass(frozen=True, slots=True)
class LayerActivations:
    """Mean and standard deviation before and after a norm layer, after each epoch.

    They are over all elements, for a batch of test images in evaluation mode.
    """

    layer: str
    mean_before: tuple[float, ...]
    std_before: tuple[float, ...]
    mean_after: tuple[float, ...]
    std_after: tuple[float, ...]


@dataclass(frozen=True)
class RunResult:
    """The outcome of one run.

    ``confusion[true][predicted]`` counts test images after the last epoch; ``mistakes`` holds
    the most confident ones, ``wrong`` the indices of all wrongly classified ones. ``weights``
    counts all parameters by size, as probes.weight_histogram does. ``recipe`` is the recipe's whole
    table, empty in rows of schema 1. ``fingerprint`` is that of the network and the recipe,
    ``code`` that of the source which the run executed, and ``data`` that of the images and labels
    (data.content_digest); all are empty for a run that did not end. ``planted`` names the fault
    that was planted while it ran, and is empty for a run of the code as it is. ``replayed`` names
    the session that trained it, where the row was taken from there; ``audits`` that of a stored run
    which it was trained again to be held against. The figures of a run that is not ``ok`` cannot be
    had: asking for one raises RunFailed with the run's message.
    """

    spec: RunSpec
    status: Status
    message: str = ""
    parameters: int = 0
    epochs: tuple[Epoch, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    wrong: tuple[int, ...] = ()
    activations: tuple[LayerActivations, ...] = ()
    weights: tuple[int, ...] = ()
    cpu_seconds: float = 0.0
    device: str = ""
    threads: int = 0
    worker: str = ""
    started: str = ""
    ended: str = ""
    torch: str = ""
    recipe: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    fingerprint: str = ""
    code: str = ""
    data: str = ""
    planted: str = ""
    replayed: str = ""
    audits: str = ""

    def __repr__(self) -> str:
        """Show what a failed assertion should say, and not the run's thousand figures."""
        ended = f"{100 * self.test_accuracy:.2f} %" if self.status == "ok" else self.status
        return f"RunResult({self.spec}: {ended})"

    @property
    def last(self) -> Epoch:
        # a failed test shows its message, and none of our lines
        __tracebackhide__ = True
        if self.status != "ok":
            raise RunFailed(f"{self.spec} {self.status}: {self.message}")
        return self.epochs[-1]

    @property
    def train_accuracy(self) -> float:
        __tracebackhide__ = True
        return self.last.train_accuracy

    @property
    def train_loss(self) -> float:
        __tracebackhide__ = True
        return self.last.train_loss

    @property
    def test_accuracy(self) -> float:
        __tracebackhide__ = True
        return self.last.test_accuracy

    @property
    def test_loss(self) -> float:
        __tracebackhide__ = True
        return self.last.test_loss

    @property
    def best_test_accuracy(self) -> float:
        __tracebackhide__ = True
        return max(self.last.test_accuracy, *(epoch.test_accuracy for epoch in self.epochs))

    @property
    def incorrect(self) -> int:
        """The number of wrongly classified test images after the last epoch."""
        right = sum(row[index] for index, row in enumerate(self.confusion))
        return sum(map(sum, self.confusion)) - right if self.last else 0

    @property
    def train_seconds(self) -> float:
        return sum(epoch.train_seconds for epoch in self.epochs)

    @property
    def test_seconds(self) -> float:
        return sum(epoch.test_seconds for epoch in self.epochs)

    @property
    def decided(self) -> dict[str, Any]:
        """What spec, data and code decide of a run; the rest is time and place."""
        epochs = [
            {name: value for name, value in _fields(epoch).items() if not name.endswith("_seconds")}
            for epoch in self.epochs
        ]
        names = ("status", "parameters", "confusion", "mistakes", "wrong", "activations", "weights")
        return {"epochs": epochs, **{name: getattr(self, name) for name in names}}

    def to_row(self) -> dict[str, Any]:
        """Return the run as a line of runs.jsonl: builtin types only, null for what it lacks."""
        row: dict[str, Any] = {"schema": SCHEMA, **vars(self), "spec": self.spec.to_dict()}
        # dataclasses.asdict goes through each count of a confusion: 5,000 rows take 1.9, not 0.4 s
        for name in ("epochs", "mistakes", "activations"):
            row[name] = [_fields(part) for part in row[name]]
        return {**row, **self.summary()}

    def summary(self) -> dict[str, float | int | None]:
        """Return the figures after the last epoch, None for a run that is not ok, and seconds."""
        names = (
            "train_accuracy",
            "test_accuracy",
            "best_test_accuracy",
            "test_loss",
            "incorrect",
        )
        figures = {name: getattr(self, name) if self.status == "ok" else None for name in names}
        return {
            **figures,
            "train_seconds": self.train_seconds,
            "test_seconds": self.test_seconds,
        }

    @classmethod
    def from_row(cls, row: object) -> "RunResult":
        """Return the run that a stored row describes.

        Raises ValueError that says what is wrong with the row.
        """
        if not isinstance(row, dict):
            raise ValueError(f"it is no JSON object, but {row!r:.60}")
        _require_schema(row)
        if row.get("status") not in get_args(Status):
            expected = ", ".join(get_args(Status))
            raise ValueError(f"status is {row.get('status')!r}: expected one of {expected}")
        # older rows have none of these
        row = {"wrong": (), "activations": (), "weights": (), **row}
        result = cls(
            **{
                **_known(cls, row),
                "spec": _part(row, "spec", lambda spec: _made(RunSpec, with_regularizer(spec))),
                "epochs": _part(row, "epochs", _each(lambda epoch: _made(Epoch, epoch))),
                "confusion": _part(row, "confusion", _square),
                "mistakes": _part(row, "mistakes", _each(lambda m: _made(Mistake, m))),
                "wrong": _part(row, "wrong", _each(_whole)),
                "activations": _part(row, "activations", _each(_activations)),
                "weights": _part(row, "weights", _each(_whole)),
            }
        )
        if result.status == "ok" and not result.epochs:
            raise ValueError("epochs is []: expected at least one of a run whose status is ok")
        return result


def _fields(part: Epoch | Mistake | LayerActivations) -> dict[str, Any]:
    """Return the fields of a part of a run by their names; these have slots, and no vars()."""
    return {name: getattr(part, name) for name in part.__slots__}


def _require_schema(row: dict[str, Any]) -> None:
    if "schema" not in row:
        raise ValueError("schema is missing")
    schema = row["schema"]
    if schema not in (1, SCHEMA):
        later = isinstance(schema, int) and schema > SCHEMA
        upgrade = "; a later version of normbench wrote it: upgrade normbench" if later else ""
        raise ValueError(
            f"a stored run has schema {schema!r}: this version reads 1 and {SCHEMA}{upgrade}"
        )


def _part(row: dict[str, Any], name: str, read: Callable[[Any], T]) -> T:
    if name not in row:
        raise ValueError(f"{name} is missing")
    try:
        return read(row[name])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{name} is {row[name]!r:.60}: {error}") from error


def _each(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    return lambda values: tuple(map(read, values))


def _made(kind: type[T], values: dict[str, Any]) -> T:
    return kind(**_known(kind, values))


def _known(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a dataclass's fields; a later version may have added some others.

    Raises ValueError for a text, a number or a fraction that is none.
    """
    types = {f.name: f.type for f in dataclasses.fields(kind) if f.name in values}
    for name, kind_of_value in types.items():
        value = values[name]
        if kind_of_value in _PLAIN:
            expected, is_right = _PLAIN[kind_of_value]
            if not is_right(value):
                raise ValueError(f"{name} = {value!r:.60}: expected {expected}")
        if name.endswith("_accuracy") and not 0 <= value <= 1:
            raise ValueError(f"{name} = {value!r}: expected a fraction, from 0 to 1")
    return {name: values[name] for name in types}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


# What a field of a type is expected to hold, and whether a value is that.
_PLAIN: dict[object, tuple[str, Callable[[object], bool]]] = {
    str: ("a text", lambda value: isinstance(value, str)),
    int: ("a whole number", _is_whole),
    int | None: ("a whole number or null", lambda value: value is None or _is_whole(value)),
    float: ("a finite number", _is_number),
    dict[str, Any]: ("a table", lambda value: isinstance(value, dict)),
}


def _whole(value: object) -> int:
    if not _is_whole(value):
        raise ValueError(f"{value!r:.60}: expected a whole number")
    return cast("int", value)


def _square(rows: Iterable[Any]) -> tuple[tuple[int, ...], ...]:
    counts = _each(_each(_whole))(rows)
    if any(len(row) != len(counts) for row in counts):
        raise ValueError("expected as many columns as rows")
    return counts


def _number(value: object) -> float:
    if not _is_number(value):
        raise ValueError(f"{value!r:.60}: expected a finite number")
    return cast("float", value)


def _activations(stored: dict[str, Any]) -> LayerActivations:
    layer, *statistics = (stored[field.name] for field in dataclasses.fields(LayerActivations))
    return LayerActivations(layer, *map(_each(_number), statistics))


def by_configuration(results: Iterable[RunResult]) -> dict[RunSpec, list[RunResult]]:
    """Return the runs of each spec, whatever their seed; the key's seed is 0."""
    found: dict[RunSpec, list[RunResult]] = {}
    for result in results:
        found.setdefault(result.spec.with_seed(0), []).append(result)
    return found


@dataclass(frozen=True)
class Runs:
    """Independent runs of one case, differing in their seed alone; figures are means over them.

    Any run that failed makes every mean raise RunFailed: a case is not judged on its luckier seeds.
    ``outcome`` is what they come to beside the baseline, None where there is none. They are
    ``unchanged`` where each was taken from an earlier session.
    """

    results: Sequence[RunResult] = field(default=())
    outcome: "Outcome | None" = None

    @classmethod
    def of(cls, results: Iterable[RunResult]) -> "Runs":
        return cls(tuple(results))

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[RunResult]:
        return iter(self.results)

    @property
    def unchanged(self) -> bool:
        return bool(self.results) and all(result.replayed for result in self.results)

    @property
    def finished(self) -> "Runs":
        """Those that ended well."""
        return Runs.of(result for result in self.results if result.status == "ok")

    def mean(self, name: str) -> float:
        """Return the mean of a RunResult's figure, such as ``"test_loss"``, over the runs."""
        __tracebackhide__ = True
        values = [getattr(result, name) for result in self.results]
        return math.fsum(values) / len(values)

    def figures(self) -> dict[str, float | str]:
        """Return the means by name, as a JUnit report keeps them; none if a run failed."""
        found = {} if self.outcome is None else {"beside_baseline": self.outcome.value}
        if any(result.status != "ok" for result in self.results):
            return {**found}
        names = ("test_accuracy", "best_test_accuracy", "train_accuracy", "test_loss")
        seconds = ("train_seconds", "test_seconds", "cpu_seconds")
        means = {name: self.mean(name) for name in (*names, *seconds)}
        if self.unchanged:
            found["unchanged_since"] = self.results[0].replayed
        trained = sum(not result.replayed for result in self.results)
        return {"runs": trained, **means, **found}

    @property
    def test_accuracy(self) -> float:
        __tracebackhide__ = True
        return self.mean("test_accuracy")

    @property
    def best_test_accuracy(self) -> float:
        __tracebackhide__ = True
        return self.mean("best_test_accuracy")


class CaseVerdict(StrEnum):
    """What a case comes to; the bad ends of a run among them are spelled as in Status."""

    PASSED = "passed"
    UNCHANGED = "unchanged"
    MEASURED = "measured"
    MARGINAL = "marginal"
    FAILED = "failed"
    SKIPPED = "skipped"
    DIVERGED = "diverged"
    CRASHED = "crashed"
    STALLED = "stalled"
    ERROR = "error"


class Outcome(StrEnum):
    """What a case's comparison comes to."""

    REGRESSION = "regression"
    SUSPECTED = "suspected"
    IMPROVEMENT = "improvement"
    UNCHANGED = "unchanged"
    NO_REGRESSION = "no regression"
    UNDECIDED = "undecided"
    NOT_COMPARABLE = "not comparable"
    ONLY_BASELINE = "only in the baseline"
    ONLY_NOW = "not in the baseline"


class ClaimVerdict(StrEnum):
    """What the runs say of a claim."""

    HOLDS = "holds"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOT_JUDGED = "not judged"


# What a test may come out as where no verdict has been recorded yet.
JUDGED = (ClaimVerdict.HOLDS, ClaimVerdict.REFUTED, ClaimVerdict.UNDECIDED)
