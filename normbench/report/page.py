"""Sessions as one page: verdicts, tables, curves, mistakes, activations, history."""

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from normbench.analysis.claims import stored_claims
from normbench.analysis.comparison import TOLD, Comparison
from normbench.analysis.spread import variances
from normbench.analysis.statistics import Estimate
from normbench.analysis.verdicts import (
    NOT_FAILED,
    replay_lines,
    shortcomings,
    to_decide,
    verdict_counts,
)
from normbench.report.cases import drawn_cases, page_cases, setting, verdict
from normbench.report.checks import check_rows
from normbench.report.figures import CURVES, STATISTICS, draw_figures
from normbench.report.gallery import first_seeds, mistakes, needed_images, sheet
from normbench.report.history import small_multiples
from normbench.report.styles import norm_style, regularizer_style
from normbench.report.tables import COLUMNS, case_tables, claims_frame, comparison_frame, figure
from normbench.report.traces import trace_rows
from normbench.results import WEIGHT_EDGES, Epoch, RunResult, by_configuration
from normbench.spec import RunSpec
from normbench.storage.documents import StoredCase, StoredComparison
from normbench.storage.files import write_atomic
from normbench.storage.pictures import read_pictures
from normbench.storage.session import StoredSession
from normbench.training.datasets import find_dataset

# Columns of the page's table at first, those that a phone's card begins with in front; one can
# choose any others, and the CSV files have every one.
SHOWN = (
    "verdict",
    "test_accuracy_percent",
    "interval_points",
    "target_percent",
    "train_accuracy_percent",
    "seeds",
    "seconds",
    "published_percent",
    "difference_points",
    "reason",
)

# The parts of the page's script, in the order in which they are run.
SCRIPT = (
    "page",
    "filters",
    "charts",
    "overview",
    "curves",
    "maps",
    "sizes",
    "confusions",
    "gallery",
    "activations",
    "weights",
    "history",
    "sessions",
    "table",
    "case",
    "start",
)


class ReportError(ValueError):
    """A session that no report can be drawn from."""


@dataclass(frozen=True)
class Drawn:
    """A stored session with the tables that the page shows, and the cases that it has room for."""

    session: StoredSession
    cases: Sequence[StoredCase]
    tables: Mapping[str, pd.DataFrame]
    comparison: pd.DataFrame | None
    claims: pd.DataFrame | None

    @classmethod
    def of(cls, session: StoredSession) -> "Drawn":
        """Work the tables out; raises ReportError where nothing was run, and as require_rows."""
        session.require_rows()
        tables, claims = case_tables(session), stored_claims(session)
        if not (tables or claims or session.checks or session.traces):
            raise ReportError(f"{session.folder}: the session has not ended, or ran no case")
        stored = session.document.comparison
        return cls(
            session,
            drawn_cases(session),
            tables,
            None if stored is None else comparison_frame(Comparison.of_stored(stored).cases),
            claims_frame(claims) if claims else None,
        )


def write_report(*stored: StoredSession) -> Path:
    """Draw a page from what sessions have stored: one file, which opens without a network.

    Of one session it is ``report.html`` in its folder; of several, side by side, it is
    ``side-by-side.html`` in the last one's. Raises ReportError for a session that has not ended.
    """
    sessions = [Drawn.of(session) for session in stored]
    page = (
        _environment()
        .get_template("report.html")
        .render(
            sessions=[_head(s, str(n)) for n, s in enumerate(sessions, start=1)],
            verdict=verdict(stored),
            data=_json(_data(sessions)),
        )
    )
    last = stored[-1]
    file = last.folder / ("report.html" if len(sessions) == 1 else "side-by-side.html")
    write_atomic(file, page)
    return file


def write_figures(session: StoredSession) -> list[Path]:
    """Draw the figures of a session's report into its ``figures``; return the files.

    Raises as write_report does.
    """
    drawn = Drawn.of(session)
    return draw_figures(session.folder / "figures", _figure_data([drawn]), drawn.tables)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("normbench.report", "assets"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    assets = files("normbench.report") / "assets"

    def read(*parts: str) -> str:
        return "\n".join(assets.joinpath(part).read_text(encoding="utf-8") for part in parts)

    environment.globals["style"] = Markup(read("report.css"))
    environment.globals["library"] = Markup(read("vendor/echarts.min.js"))
    environment.globals["script"] = Markup(read(*(f"script/{part}.js" for part in SCRIPT)))
    return environment


def _json(value: Any) -> Markup:
    """Return JSON that can stand in a script element, whatever its texts hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))


def _head(drawn: Drawn, number: str) -> dict[str, Any]:
    """Return what stands at the page's top, and what is told of claims and baseline.

    Side by side, sessions are known by their number.
    """
    session, document = drawn.session, drawn.session.document
    told = _claims(drawn.claims)
    trained = [run for run in session.results.values() if not run.replayed]
    counts = verdict_counts(session.judged_cases)
    return {
        **document.model_dump(mode="json", exclude={"cases", "claims", "comparison"}),
        "number": number,
        "cases": len(session.judged_cases),
        "drawn": len(drawn.cases),
        "runs": len(trained),
        "core_seconds": sum(run.cpu_seconds for run in trained),
        "replayed": replay_lines(session),
        "counts": [(v, n, v not in NOT_FAILED) for v, n in counts.items()],
        "claims": told,
        "checks": [check_rows(checked) for checked in session.checks],
        "traces": trace_rows(session.traces) if session.traces else None,
        "claim_counts": Counter(head["verdict"] for head, _ in told),
        "comparison": _comparison(drawn.comparison, document.comparison),
        "shortcomings": shortcomings(session),
    }


def _comparison(
    table: pd.DataFrame | None, stored: StoredComparison | None
) -> dict[str, Any] | None:
    """Return the baseline's name, the speed, how many cases came out how, and those to look at."""
    if table is None or stored is None:
        return None
    comparison = Comparison.of_stored(stored)
    return {
        "baseline": stored.baseline,
        "speed": stored.speed,
        "counts": {str(outcome): number for outcome, number in comparison.counts.items()},
        "to_decide": to_decide(comparison),
        "rows": table[table["outcome"].isin(TOLD)].to_dict("records"),
    }


def _claims(table: pd.DataFrame | None) -> list[tuple[Any, list[Any]]]:
    """Return each claim with what it stands on."""
    if table is None:
        return []
    return [
        (part.iloc[0].to_dict(), part[part["subject"].notna()].to_dict("records"))
        for _, part in table.groupby("claim", sort=False)
    ]


def _data(sessions: Sequence[Drawn]) -> dict[str, Any]:
    """Return what the page's script draws."""
    data = _figure_data(sessions)
    stored = [read_pictures(drawn.session.folder) for drawn in sessions]
    cases = [
        case
        for drawn, number, mark in _marked(sessions)
        for case in page_cases(drawn.session, drawn.cases, number, mark)
    ]
    return {
        **data,
        "cases": cases,
        "columns": [
            {"name": name, "heading": heading, "format": kind, "shown": name in SHOWN}
            for name, (heading, kind) in COLUMNS.items()
            if name not in ("dataset", "norm", "regularizer", "batch_size")
            and any(name in case["figures"] for case in cases)
        ],
        "sessions": [drawn.session.name for drawn in sessions],
        "galleries": [
            {"session": number, **group}
            for drawn, number, mark in _marked(sessions)
            for group in _galleries(drawn, mark)
        ],
        "pictures": {name: dataclasses.asdict(sheet(name, stored)) for name in data["classes"]},
        "history": _history(sessions[-1], {case["title"] for case in cases}),
        "traces": [
            {
                "session": number,
                "dataset": trace.spec.dataset,
                "norm": trace.spec.norm,
                "row": trace_rows([trace])["rows"][0],
            }
            for drawn, number, _ in _marked(sessions)
            for trace in drawn.session.traces
        ],
        "styles": {
            "norm": {
                norm: vars(norm_style(norm))
                for norm in dict.fromkeys([*(case["norm"] for case in cases), *data["published"]])
            },
            "regularizer": {
                case["regularizer"]: vars(regularizer_style(case["regularizer"])) for case in cases
            },
        },
    }


def needed_pictures(session: StoredSession) -> dict[str, set[int]]:
    """Return, by data set, the indices of the test images that a session's report shows."""
    needed: dict[str, set[int]] = {}
    for group in _galleries(Drawn.of(session), ""):
        needed.setdefault(group["dataset"], set()).update(needed_images([group]))
    return {dataset: indices for dataset, indices in needed.items() if indices}


def _marked(sessions: Sequence[Drawn]) -> list[tuple[Drawn, int, str]]:
    """Return each session with its number, and what tells its lines from the others'."""
    return [
        (drawn, number, f" ({number})" if len(sessions) > 1 else "")
        for number, drawn in enumerate(sessions, start=1)
    ]


def _figure_data(sessions: Sequence[Drawn]) -> dict[str, Any]:
    """Return what the figures show as well."""
    found = [(n, mark, _configurations(drawn)) for drawn, n, mark in _marked(sessions)]
    names = {spec for *_, configurations in found for spec in configurations}
    return {
        "runs": [
            {"session": number, **_configuration(spec, spec.norm + mark, runs)}
            for number, mark, configurations in found
            for spec, runs in configurations.items()
        ],
        "broken": [
            {
                "session": number,
                **_curves(run.spec, f"{run.spec.norm}{mark} ({run.status})", [run]),
            }
            for drawn, number, mark in _marked(sessions)
            for run in _drawn_runs(drawn)
            if run.status != "ok" and run.epochs
        ],
        "sizes": [
            {"session": number, **size}
            for number, mark, configurations in found
            for size in _sizes(configurations, mark)
        ],
        "published": _published_sizes(),
        "edges": [round(edge, 9) for edge in WEIGHT_EDGES],
        "classes": {
            spec.dataset: find_dataset(spec.dataset).classes for spec in sorted(names, key=str)
        },
    }


def _drawn_runs(drawn: Drawn) -> list[RunResult]:
    """Return the runs of a session, or those of its cases that the page has room for."""
    runs = list(drawn.session.results.values())
    if len(drawn.cases) == len(drawn.session.judged_cases):
        return runs
    specs = {stored.case.spec.with_seed(0) for stored in drawn.cases}
    return [run for run in runs if run.spec.with_seed(0) in specs]


def _configurations(drawn: Drawn) -> dict[RunSpec, list[RunResult]]:
    """Return the runs of each configuration that ended well.

    The longest come first in a session; a page begins with what is plainest, norms in the order of
    the grids.
    """
    norms = [norm for table in drawn.tables.values() for norm in table["norm"]]
    rank = {norm: place for place, norm in enumerate(dict.fromkeys(norms))}

    def order(spec: RunSpec) -> tuple[Any, ...]:
        return (
            spec.dataset,
            sorted(spec.strengths.items()),
            spec.batch_size,
            rank.get(spec.norm, len(rank)),
        )

    finished = by_configuration(run for run in _drawn_runs(drawn) if run.status == "ok")
    return {spec: finished[spec] for spec in sorted(finished, key=order)}


def _curves(spec: RunSpec, line: str, runs: Sequence[RunResult]) -> dict[str, Any]:
    """Return a configuration's curves by seed; of a run that ended badly, as far as it came."""

    def curve(name: str, epochs: Sequence[Epoch]) -> list[float]:
        return [round(getattr(epoch, name), 5) for epoch in epochs]

    return {
        "setting": setting(spec),
        "norm": spec.norm,
        "line": line,
        "regularizer": spec.regularizer,
        "batch_size": spec.batch_size,
        "curves": {name: [curve(name, run.epochs) for run in runs] for name in CURVES},
    }


def _configuration(spec: RunSpec, line: str, runs: Sequence[RunResult]) -> dict[str, Any]:
    """Return a configuration's curves by seed, and its confusions and weights over all seeds."""
    classes = range(len(runs[0].confusion))
    return {
        **_curves(spec, line, runs),
        "dataset": spec.dataset,
        "confusion": [
            [sum(run.confusion[true][predicted] for run in runs) for predicted in classes]
            for true in classes
        ],
        "seeds": len(runs),
        "activations": {
            layer.layer: {
                name: [float(f"{value:.4g}") for value in getattr(layer, name)]
                for name in STATISTICS
            }
            for layer in first_seeds(runs).activations
        },
        "weights": [sum(counts) for counts in zip(*(run.weights for run in runs), strict=False)],
    }


def _sizes(found: Mapping[RunSpec, Sequence[RunResult]], mark: str) -> list[dict[str, Any]]:
    """Return, of each norm, accuracy by batch size with half a 95 % interval."""
    samples = {spec: [run.test_accuracy for run in runs] for spec, runs in found.items()}
    spread = variances(samples)
    lines: dict[tuple[str, str, str], list[list[float | None]]] = {}
    for spec in samples:
        mean = Estimate.mean(samples[spec], spread[spec])
        reach = round(100 * mean.margin_of_error(0.025), 3) if spread[spec].known else None
        key = (setting(spec), spec.regularizer, spec.norm)
        lines.setdefault(key, []).append([spec.batch_size, round(100 * mean.value, 3), reach])
    return [
        {
            "setting": named,
            "regularizer": regularizer,
            "norm": norm,
            "line": norm + mark,
            "points": points,
        }
        for (named, regularizer, norm), points in lines.items()
        if len(points) > 1
    ]


def _published_sizes() -> dict[str, list[list[float]]]:
    """Return the accuracies that the paper of group normalization has by batch size."""
    text = (files("normbench.report") / "assets" / "groupnorm_paper.csv").read_text(
        encoding="utf-8"
    )
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {
        row.pop("norm"): sorted(
            [int(size), round(100 - float(error), 1)] for size, error in row.items()
        )
        for row in rows
    }


def _galleries(drawn: Drawn, mark: str) -> list[dict[str, Any]]:
    """Return the wrong images of each regularizer and batch size, by norm: those of one seed."""
    groups: dict[tuple[str, str, str, int], dict[str, RunResult]] = {}
    for spec, runs in _configurations(drawn).items():
        key = (spec.dataset, setting(spec), spec.regularizer, spec.batch_size)
        groups.setdefault(key, {})[spec.norm + mark] = first_seeds(runs)
    return [
        {
            "dataset": dataset,
            "setting": named,
            "regularizer": regularizer,
            "batch_size": batch_size,
            **mistakes(by_line),
        }
        for (dataset, named, regularizer, batch_size), by_line in groups.items()
    ]


def _history(drawn: Drawn, titles: Set[str]) -> dict[str, Any]:
    """Return the cases' accuracies over sessions, with the band in which the baseline is met.

    ``titles`` are those of the cases that the page has.
    """
    bands: dict[str, list[float]] = {}
    if drawn.comparison is not None:
        for row in drawn.comparison.to_dict("records"):
            middle, reach = row["baseline_percent"], row["interval_points"]
            if not (pd.isna(middle) or pd.isna(reach)):
                bands[row["case"]] = [round(middle - reach, 3), round(middle + reach, 3)]
    found = small_multiples(drawn.session, bands)
    return {**found, "cases": [one for one in found["cases"] if one["case"] in titles]}
