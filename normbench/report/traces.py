"""What traces have found, on the terminal and for the report."""

from collections.abc import Sequence
from typing import Any

from normbench.check.trace_record import Trace, listed


def trace_lines(traces: Sequence[Trace]) -> list[str]:
    """Return a line that sums the traces up, then one for each that is not as it should be."""
    if not traces:
        return []
    broken = sum(bool(trace.broken) for trace in traces)
    changed = sum(bool(trace.beside) for trace in traces)
    worst = max(traces, key=lambda trace: trace.share)
    seconds = sum(trace.seconds for trace in traces)
    count = f"{len(traces)} trace{'s' if len(traces) > 1 else ''}"
    found = f"{count}, {broken} broken, {changed} not as in a baseline ({seconds:.1f} s)"
    if not broken:
        found += (
            f"; the largest error is {worst.share:.2g} of its bound ({worst.name}, {worst.where})"
        )
    return [found, *(line for trace in traces for line in told(trace))]


def told(trace: Trace) -> list[str]:
    """Return what is broken of a trace, and how it differs from a baseline's, in a line each."""
    lines = [f"{trace.name}: {listed(trace.broken)}"] if trace.broken else []
    return lines + [f"{trace.name}: {line}" for line in trace.beside]


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
                f"{trace.share:.2g} ({trace.where})",
                " ".join([listed(trace.broken), *trace.beside, trace.note]).strip(),
                f"{trace.losses[0]:.4f}",
                f"{trace.losses[-1]:.4f}",
            )
            for trace in order
        ],
    }
