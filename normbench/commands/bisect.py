"""Find the revision that changed a case: a commit of the suite or of a norm, or a torch release.

CASE is an id as pytest shows it, such as digits-batch-none-b64, or with a norm of your own,
digits-mypkg.norms:MyNorm-none-b64. Commits are checked out in a temporary folder, never in yours:
what is not committed takes no part. By --test trace, a few batches are trained at each commit, and
compared to the bit; by --test accuracy, whole runs are, whose scatter is taken into account. Runs
are kept, so that the same command goes on where it was stopped. Exits with 0 if the revision is
found, with 1 if several are left, and with 2 if the question cannot be answered.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from normbench.plugin.parsers import (
    parse_cases_file,
    parse_count,
    parse_device_syntax,
    parse_folder,
)

if TYPE_CHECKING:
    from normbench.engine.bisection import Bisected, Change, Tell
    from normbench.engine.processes import RunProcess
    from normbench.engine.revision_runs import NamedCase, Place, RevisionRuns
    from normbench.engine.revisions import Repository, Revision

HELP = "find the commit, or the torch release, that changed a case"

# Of all runs of a search by accuracy, both ends among them.
MOST_RUNS = 200


def parse_releases(text: str) -> tuple[str, str]:
    first, colon, last = text.partition(":")
    if not (colon and first and last):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected two releases of torch, such as 2.13:2.15"
        )
    return first, last


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("case", metavar="CASE", help="a case's id")
    command.add_argument("--good", metavar="REV", help="an older commit, before the change")
    command.add_argument(
        "--bad", metavar="REV", default="HEAD", help="a commit after the change (default: HEAD)"
    )
    command.add_argument(
        "--torch",
        type=parse_releases,
        metavar="A:B",
        help="go over the torch releases from A to B in place of commits, with the environments "
        "of a clone's tox.ini",
    )
    command.add_argument(
        "--repo",
        type=parse_folder,
        default=".",
        metavar="DIR",
        help="the folder in a git repository where the suite is started: that of the suite, or the "
        "one that a norm of yours is imported from (default: the current one)",
    )
    command.add_argument(
        "--test",
        choices=("trace", "accuracy"),
        default="trace",
        help="what is compared: a few batches, to the bit, or whole runs (default: trace)",
    )
    command.add_argument(
        "--runs",
        type=parse_count,
        default=MOST_RUNS,
        metavar="N",
        help="how many runs --test accuracy trains at most, those of both ends among them "
        f"(default: {MOST_RUNS})",
    )
    command.add_argument(
        "--cases",
        type=parse_cases_file,
        metavar="FILE",
        help="the cases file that has the case, as it is now (default: those of the suite, in its "
        "own repository as each commit has them)",
    )
    command.add_argument(
        "--data", type=parse_folder, metavar="DIR", help="data root; as for --bench-data"
    )
    command.add_argument(
        "--device", type=parse_device_syntax, default="auto", help="as for --bench-device"
    )
    command.add_argument(
        "--state",
        type=Path,
        default=Path("results/bisect"),
        metavar="DIR",
        help="where runs are kept, and not trained twice (default: results/bisect)",
    )
    command.add_argument("--json", action="store_true", help="print JSON in place of the lines")


def main(options: argparse.Namespace, process: RunProcess | None = None) -> int:
    """Run the command; ``process`` runs what is started, by default a process of its own."""
    if (options.good is None) == (options.torch is None):
        raise ValueError("expected one of --good REV and --torch A:B, to say where to search")
    from normbench.engine.bisection import AccuracySearch, TraceSearch
    from normbench.engine.processes import run_process
    from normbench.engine.revisions import ended_by_termination

    def tell(line: str) -> None:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    try:
        with ended_by_termination(), _asked(options, process or run_process, tell) as asked:
            if options.test == "trace":
                found = TraceSearch(asked.line, asked.runs, tell).bisected()
            else:
                found = AccuracySearch(asked.line, asked.runs, tell, options.runs).bisected()
            document = _document(found, options, asked)
    except KeyboardInterrupt:
        print("normbench: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        print("\n".join(_lines(found, document)))
    return 0 if found.found else 1


class _Asked(NamedTuple):
    """Where is searched: a line of revisions, their runs, and the repository."""

    line: list[Revision]
    runs: RevisionRuns
    repository: Repository


@contextmanager
def _asked(options: argparse.Namespace, process: RunProcess, tell: Tell) -> Iterator[_Asked]:
    """Yield where is searched; raises ValueError for a question that makes no sense."""
    from normbench.engine.revision_runs import Commits, NamedCase, ToxEnvironments
    from normbench.engine.revisions import Repository
    from normbench.training.datasets import default_root

    folder = Path(options.repo).absolute()
    # a cases file may name a norm that lies there
    sys.path.insert(0, str(folder))
    repository = Repository(folder)
    data = Path(options.data).absolute() if options.data else default_root().absolute()
    case = NamedCase(options.case, data, Path(options.cases).absolute() if options.cases else None)
    if options.torch:
        environments = ToxEnvironments(case, repository, process)
        line = environments.line(*options.torch)
        tell(f"{len(line)} releases of torch, in environments of {repository.root / 'tox.ini'}")
        yield _Asked(line, _runs(options, case, environments, process), repository)
        return
    line = repository.line(options.good, options.bad)
    suite = repository.is_suite(line[-1])
    left = "; what is not committed takes no part" if repository.is_changed else ""
    tell(f"{len(line) - 1} commits of {repository.root}{left}")
    with repository.worktrees() as worktrees:
        commits = Commits(case, worktrees, suite, process)
        yield _Asked(line, _runs(options, case, commits, process), repository)


def _runs(
    options: argparse.Namespace, case: NamedCase, place: Place, process: RunProcess
) -> RevisionRuns:
    from normbench.engine.revision_runs import RevisionRuns

    whole = options.test == "accuracy"
    return RevisionRuns(case, place, options.state, whole, options.device, process)


def _document(found: Bisected, options: argparse.Namespace, asked: _Asked) -> dict[str, Any]:
    """Return what was found, on what evidence, and how to see it again."""
    before, after = (found.line[position] for position in found.around)
    is_commit = bool(found.found and found.found.date)
    return {
        "case": options.case,
        "test": options.test,
        "found": _revision(found.found) if found.found else None,
        "candidates": [_revision(found.line[position]) for position in found.candidates],
        "before": _revision(before),
        "after": _revision(after),
        "files": asked.repository.changed_files(after) if is_commit else [],
        **(_of_traces(found, options) if found.change else _of_accuracies(found)),
        "skipped": [
            {"revision": found.line[position].name, "reason": reason}
            for position, reason in sorted(found.skipped.items())
        ],
        "steps": found.steps,
        "seconds": round(found.seconds, 1),
        "repeat": _command(options, before, after),
        "into_merge": _into_merge(found, options, asked.repository),
        "commands": {
            revision.name: asked.runs.command(revision, count)
            for revision, count in _shown_runs(found)
        },
    }


def _revision(revision: Revision) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(revision).items() if value}


def _of_traces(found: Bisected, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures that differ, and what else changed between the ends."""

    def told(change: Change) -> dict[str, Any]:
        before, after = found.line[change.before], found.line[change.after]
        return {
            "before": before.name,
            "after": after.name,
            **dataclasses.asdict(change.difference),
            "repeat": _command(options, before, after),
        }

    assert found.change is not None
    return {
        "difference": told(found.change),
        "other_changes": [told(change) for change in found.others],
    }


def _of_accuracies(found: Bisected) -> dict[str, Any]:
    """Return the drop, its interval and the runs that it stands on."""
    assert found.drop is not None
    low, high = found.drop.interval()
    return {
        "probability": found.probability,
        "drop": {
            "difference": found.drop.value,
            "low": low,
            "high": high,
            **{
                side: {"mean": fmean(values), "runs": len(values)}
                for side, values in zip(("before", "after"), found.sides, strict=True)
            },
        },
        "accuracies": {
            found.line[position].name: list(values)
            for position, values in sorted(found.accuracies.items())
        },
        "alike": {
            found.line[position].name: found.line[twin].name
            for position, twin in sorted(found.alike.items())
        },
    }


def _command(options: argparse.Namespace, before: Revision, after: Revision) -> str:
    """Return the command that searches between two revisions."""
    if options.torch:
        ends = [revision.name.removeprefix("torch-") for revision in (before, after)]
        between = ["--torch", ":".join(ends)]
    else:
        between = ["--good", before.short, "--bad", after.short]
    chosen = {
        "--repo": (options.repo, "."),
        "--test": (options.test, "trace"),
        "--cases": (options.cases, None),
        "--data": (options.data, None),
        "--device": (options.device, "auto"),
        "--state": (str(options.state), "results/bisect"),
    }
    given = [
        text
        for name, (value, default) in chosen.items()
        if value != default
        for text in (name, value)
    ]
    return shlex.join(["normbench", "bisect", options.case, *between, *given])


def _into_merge(found: Bisected, options: argparse.Namespace, repository: Repository) -> str:
    """Return the command that searches what a merge brought in; empty where none was found."""
    merge = found.found
    if merge is None or len(merge.parents) < 2:
        return ""
    parted = repository.commit(repository.merge_base(merge))
    return _command(options, parted, repository.commit(merge.parents[1]))


def _shown_runs(found: Bisected) -> Iterator[tuple[Revision, int]]:
    """Yield the revisions on both sides, with the number of runs each that were compared."""
    for position in found.around:
        count = len(found.accuracies.get(position, ()))
        if count or found.change or position in found.alike:
            yield found.line[position], count or 1


def _lines(found: Bisected, document: dict[str, Any]) -> Iterator[str]:
    """Yield what was found as text."""
    yield ""
    if found.found:
        yield f"{found.found.short} changed {document['case']}"
        if found.found.date:
            yield f"  {found.found.date}  {found.found.author}: {found.found.subject}"
        yield from (f"  {line}" for line in document["files"])
    else:
        yield f"one of these {len(found.candidates)} changed {document['case']}:"
        yield from (f"  {found.line[position].title}" for position in found.candidates)
    yield from _evidence(found, document)
    for each in document["skipped"]:
        yield f"skipped {each['revision'][:12]}: {each['reason']}"
    if document["into_merge"]:
        yield f"it is a merge; to search what it brought in: {document['into_merge']}"
    counted = "steps between the ends" if found.change else "runs"
    yield f"{found.steps} {counted}, {found.seconds:.0f} s"
    yield f"to repeat it: {document['repeat']}"
    for name, commands in document["commands"].items():
        yield f"to run {name[:12]} alone:"
        yield from (f"  {command}" for command in commands)


def _evidence(found: Bisected, document: dict[str, Any]) -> Iterator[str]:
    from normbench.engine.bisection import points, shown

    if found.drop is not None:
        for position in found.around:
            values = found.accuracies.get(position, ())
            told = ", ".join(f"{100 * value:.2f} %" for value in values) or "not run"
            if position in found.alike:
                told = f"equals {found.line[found.alike[position]].short} to the bit"
            yield f"{found.line[position].short}: {told}"
        for side, values in zip(("before", "after"), found.sides, strict=True):
            yield f"{side + ':':<7} {100 * fmean(values):.2f} % on average of {len(values)} runs"
        yield f"by {points(found.drop)}; probability {found.probability:.3f}"
        return
    first = document["difference"]
    yield f"before: {first['figure']} = {shown(first['before_value'])}"
    yield (
        f"after:  {first['figure']} = {shown(first['after_value'])}; {first['different']} of "
        f"{first['figures']} figures differ"
    )
    for other in document["other_changes"]:
        yield (
            f"another change lies after {other['before'][:12]}, up to {other['after'][:12]}: "
            f"{other['figure']} {shown(other['before_value'])} to {shown(other['after_value'])}; "
            f"{other['repeat']}"
        )
