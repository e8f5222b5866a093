"""The page that gpu.py writes: what was measured, as tables; needs the standard library alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpu_runner import Outcome

Row = Mapping[str, Any]


def cell(value: object) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value == 0 or abs(value) >= 100:
            return f"{value:,.0f}"
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    return " ".join(str(value).replace("|", "\\|").split())


def table(rows: Sequence[Row], without: Iterable[str] = ()) -> str:
    """Return a Markdown table of all keys of the rows, in the order in which they first come."""
    keys = [key for key in dict.fromkeys(k for row in rows for k in row) if key not in set(without)]
    lines = [keys, ["---"] * len(keys), *([cell(row.get(key)) for key in keys] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def document(outcomes: Sequence[Outcome], started: str, quick: bool) -> str:
    """Return the page: the machine, the stages, and a section of each that measured something."""
    results = {outcome.name: outcome.result for outcome in outcomes if outcome.result}
    told = [
        {
            "stage": outcome.name,
            "ended": outcome.status,
            "seconds": outcome.seconds,
            "told": outcome.result.get("told") or outcome.message.partition(";")[0],
        }
        for outcome in outcomes
    ]
    parts = ["# Speed on a GPU", machine(results.get("facts", {}), started)]
    if quick:
        parts.append("A quick run, on few images: it shows that the program runs, and no speed.")
    parts += ["## Stages", table(told)]
    sections = {
        "run": single_runs,
        "tests": tests,
        "check": checks,
        "accuracy": accuracies,
        "profile": steps,
        "grid": rounds,
    }
    for name, section in sections.items():
        if results.get(name):
            try:
                parts += section(results[name])
            except (KeyError, TypeError, ValueError) as error:
                parts.append(f"{name}: gpu.json has it, this page has not ({error!r}).")
    return "\n\n".join(parts) + "\n"


def machine(facts: Row, started: str) -> str:
    packages = facts.get("packages", {})
    return (
        f"Machine: {', '.join(facts.get('gpus', [])) or 'no GPU'}, driver and state "
        f"{facts.get('queried', 'unknown')}; {facts.get('cores', '?')} cores of "
        f"{facts.get('processor', '?')}; Python {facts.get('python', '?')}, torch "
        f"{packages.get('torch')}, cuDNN {facts.get('cudnn')}. Float32 in a run: "
        f"{facts.get('float32 in a run', 'unknown')}. Started {started}, by `python perf/gpu.py`."
    )


def single_runs(result: Row) -> list[str]:
    return [
        "## One run of MNIST at batch size 64",
        table(result["rows"], without=("digest",)),
        table(result["pairs"]),
        *listed("After a capture that failed", result.get("after_failure", {})),
    ]


def listed(title: str, values: Row) -> list[str]:
    rows = [{"what": key, "seen": value} for key, value in values.items()]
    return [f"{title}:", table(rows)] if rows else []


def tests(result: Row) -> list[str]:
    rows = []
    for name in ("steps", "others"):
        outcome = result.get(name)
        if outcome:
            rows.append({"tests": name, "passed": outcome.get("passed")} | failures(outcome))
    return ["## Tests", table(rows)]


def failures(outcome: Row) -> dict[str, Any]:
    return {key: sorted(outcome.get(key) or {}) for key in ("failed", "skipped")}


def checks(result: Row) -> list[str]:
    rows = [{"norm": name, **found} for name, found in result["norms"].items()]
    return ["## Check", table(rows)]


def accuracies(result: Row) -> list[str]:
    return ["## Test accuracy of four MNIST cases, beside the CPU", table(result["table"])]


def steps(result: Row) -> list[str]:
    figures = [
        {"step": name, **{k: v for k, v in found.items() if not k.startswith("by time")}}
        for name, found in result["steps"].items()
    ]
    parts = ["## A step", table(figures)]
    for name, found in result["steps"].items():
        for place in ("by time on the GPU", "by time on the CPU"):
            if found.get(place):
                parts += [f"### {name}, {place}", table(found[place])]
    return parts


def rounds(result: Row) -> list[str]:
    ordered = sorted(result["rounds"], key=lambda row: (row["MPS"], row["workers"]))
    return ["## The grid of 16 runs by workers", table(ordered), *result["notes"]]
