"""What traces have found, on the terminal and for the report."""

import math
from collections.abc import Sequence
from typing import Any

from normbench.check.trace_record import Trace, listed


def trace_lines(traces: Sequence[Trace]) -> list[str]:
    """Return a line that sums the traces up, then one for each that is not as it should be."""
    if not traces:
        return []
    broken = sum(bool(trace.broken) for trace in traces)
    compared = [trace for trace in traces if trace.beside or trace.equal_to]
    worst = max(traces, key=lambda trace: trace.share)
    seconds = sum(trace.seconds for trace in traces)
    count = f"{len(traces)} trace{'s' if len(traces) > 1 else ''}"
    found = f"{count}, {broken} broken"
    if compared:
        equal = sum(not trace.beside for trace in compared)
        found += f", {equal} of {len(compared)} equal to the bit to a baseline's"
    found += f" ({seconds:.1f} s)"
    if not broken:
        found += (
            f"; the largest error is {worst.share:.2g} of its bound ({worst.name}, {worst.where})"
        )
    return [found, *(line for trace in traces for line in told(trace))]


def told(trace: Trace) -> list[str]:
    """Return what is broken of a trace, and how it differs from a baseline's, in a line each."""
    lines = [f"{trace.name}: {listed(trace.broken)}"] if trace.broken else []
    return lines + [f"{trace.name}: {line}" for line in trace.beside if line not in trace.broken]


def _ends(losses: Sequence[float]) -> tuple[float, float]:
    """Return the first and the last loss; not a number where there is none."""
    return (losses[0], losses[-1]) if losses else (math.nan, math.nan)


def _seen(trace: Trace) -> str:
    beside = [line for line in trace.beside if line not in trace.broken]
    equal = [f"equal to the bit to the baseline {name}" for name in trace.equal_to]
    return ". ".join(filter(None, [listed(trace.broken), *beside, *equal, trace.note]))


def trace_rows(traces: Sequence[Trace]) -> dict[str, Any]:
    """Return what the report shows of the traces: those that are broken first."""
    order = sorted(traces, key=lambda trace: (not trace.broken, not trace.beside))
    return {
        "lines": trace_lines(traces),
        "broken": any(trace.broken for trace in traces),
        "rows": [
            (
                trace.name,
                "broken" if trace.broken else "holds",
                f"{trace.share:.2g} ({trace.where})" if trace.where else "",
                _seen(trace),
                *(f"{loss:.4f}" for loss in _ends(trace.losses)),
            )
            for trace in order
        ],
    }
