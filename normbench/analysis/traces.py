"""A trace beside a baseline's: equal to the bit, or where they first differ and by how much."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from normbench.check.trace_record import GROUND, Trace, digest_at


class TraceStanding(StrEnum):
    """How a trace stands beside a baseline's.

    DIFFERENT is where both were taken on the same ground, and so have to be equal; CHANGED is on
    another ground, where they may differ.
    """

    EQUAL = "equal"
    DIFFERENT = "different"
    CHANGED = "numerics changed"
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True)
class TraceComparison:
    """How a trace stands, and what to say of it, in a sentence."""

    standing: TraceStanding
    told: str


@dataclass(frozen=True)
class Difference:
    """The first step and tensor that differ; ``relative`` is the difference of their norms."""

    place: str
    relative: float

    def __str__(self) -> str:
        if self.relative == 0:
            return f"first at {self.place}, in bits that leave its norm the same to nine digits"
        of = "which" if self.place.endswith("loss") else "whose norm"
        return f"first at {self.place}, {of} differs by {self.relative:.2g} of itself"


def first_difference(now: Trace, before: Trace) -> Difference | None:
    """Return where two traces of one spec first differ; None where they are equal."""
    for step in range(max(map(len, before.norms.values()), default=0)):
        if now.losses[step : step + 1] != before.losses[step : step + 1]:
            one, other = (trace.losses[step : step + 1] or (0.0,) for trace in (now, before))
            return Difference(f"step {step + 1}, the loss", _relative(one[0], other[0]))
        for tensor, sizes in before.norms.items():
            if step >= len(sizes):
                continue
            evaluation = step == len(before.losses)
            place = f"the evaluation, {tensor}" if evaluation else f"step {step + 1}, {tensor}"
            if step >= len(now.norms.get(tensor, ())):
                return Difference(f"{place}, which is not there any more", 1.0)
            if digest_at(now, tensor, step) != digest_at(before, tensor, step):
                return Difference(place, _relative(now.norms[tensor][step], sizes[step]))
    if added := [name for name in now.norms if name not in before.norms]:
        return Difference(f"step 1, {added[0]}, which was not there", 1.0)
    return None


def same_training(now: Trace, before: Trace) -> bool:
    """Tell whether two traces of cases are equal to the bit, the result's figures included."""
    return now.figures == before.figures and first_difference(now, before) is None


def _relative(now: float, before: float) -> float:
    return abs(now - before) / (abs(before) or 1.0)


def compare_traces(now: Trace, before: Trace, baseline: str) -> TraceComparison:
    """Hold a trace against one of its name in a baseline."""
    if now.spec != before.spec:
        return TraceComparison(
            TraceStanding.NOT_COMPARABLE,
            f"not comparable with the baseline {baseline}, whose trace is of another run",
        )
    difference = first_difference(now, before)
    if difference is None:
        return TraceComparison(TraceStanding.EQUAL, f"equal to the bit to the baseline {baseline}")
    other = [name for name in GROUND if now.ground[name] != before.ground[name]]
    if not other:
        return TraceComparison(
            TraceStanding.DIFFERENT,
            f"differs from the baseline {baseline} on the same machine, torch, threads and code, "
            f"{difference}: expected it equal to the bit; training is not deterministic, or "
            "something that it calls has changed",
        )
    return TraceComparison(
        TraceStanding.CHANGED,
        f"numerics changed since the baseline {baseline} ({_grounds(now, before, other)}), "
        f"{difference}",
    )


def _grounds(now: Trace, before: Trace, other: Iterable[str]) -> str:
    return ", ".join(
        "another processor"
        if name == "processor"
        else f"{name} {now.ground[name]} for {before.ground[name]}"
        for name in other
    )


@dataclass(frozen=True)
class TraceCounts:
    """How the traces of two sessions stand: how many are equal, and what is said of the others."""

    equal: int
    different: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The counts in a line, then one for each trace that is not equal; none without traces."""
        others = [*self.different, *self.changed]
        known = self.equal + len(others)
        return [f"{self.equal} of {known} traces equal to the bit", *others] if known else []


def compare_all(now: Sequence[Trace], known: Sequence[Trace], baseline: str) -> TraceCounts:
    """Hold traces against a baseline's of their names; those that it does not have are left out."""
    pairs = [(trace.name, beside(trace, known, baseline)) for trace in now]
    told: dict[TraceStanding, list[str]] = {standing: [] for standing in TraceStanding}
    for name, found in pairs:
        if found is not None:
            told[found.standing].append(f"{name}: {found.told}")
    changed = told[TraceStanding.CHANGED] + told[TraceStanding.NOT_COMPARABLE]
    return TraceCounts(
        len(told[TraceStanding.EQUAL]), tuple(told[TraceStanding.DIFFERENT]), tuple(changed)
    )


def beside(now: Trace, known: Sequence[Trace], baseline: str) -> TraceComparison | None:
    """Hold a trace against a baseline's of its name; None where it has none.

    Of several, that which was taken on the same ground counts, else the first.
    """
    named = [trace for trace in known if trace.name == now.name]
    if not named:
        return None
    same = [trace for trace in named if trace.ground == now.ground and trace.spec == now.spec]
    return compare_traces(now, (same or named)[0], baseline)
