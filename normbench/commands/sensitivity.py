"""Measure what the suite finds: plant known faults one by one, and tell which stage sees each.

A fault goes through the stages in their order, each a process of pytest on one core with the fault
planted (--bench-plant), and stops at the first that fails. Before the first fault, all stages have
to pass without one. Exits with 0 if at least 95 % of the faults are found, 90 % within 60 seconds,
and every fault of a norm by the check alone; else with 1; and with 2 if a stage fails without a
fault.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normbench.plugin.parsers import parse_seconds

if TYPE_CHECKING:
    from normbench.analysis.sensitivity import Sensitivity
    from normbench.check.faults import Fault
    from normbench.commands.stages import Stage
    from normbench.storage.sensitivity import Detection, StageEnd

    RunStage = Callable[[Stage, str | None], StageEnd]

HELP = "measure which planted faults the suite finds"

# Of one stage: the slowest, the smoke tier with further seeds on one core, takes some minutes.
LIMIT_SECONDS = 1800.0

STAGE_NAMES = ("check", "trace", "smoke", "mnist", "baseline")


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "faults", metavar="FAULT", nargs="*", help="a fault's name (default: all of them)"
    )
    command.add_argument(
        "--list", action="store_true", help="list the faults, and what each stands for"
    )
    command.add_argument(
        "--stage",
        action="append",
        default=[],
        choices=STAGE_NAMES,
        help="go through this stage alone (repeatable; default: all, in this order)",
    )
    command.add_argument(
        "--limit",
        type=parse_seconds,
        default=LIMIT_SECONDS,
        metavar="SECONDS",
        help="stop a stage that takes longer, which then has found nothing (default: "
        f"{LIMIT_SECONDS:g})",
    )
    command.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="keep what is found in this file, a line for each fault, and go on from what it has",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the table into this page of markdown, between its two marks",
    )
    command.add_argument("--json", action="store_true", help="print JSON in place of the table")


def main(options: argparse.Namespace, runner: RunStage | None = None) -> int:
    """Run the command; ``runner`` runs a stage, by default in a process of its own."""
    from normbench.analysis.sensitivity import Sensitivity
    from normbench.check.faults import FAULTS, find_fault
    from normbench.report.sensitivity import (
        detection_line,
        sensitivity_page,
        surroundings,
        write_page,
    )

    if options.list:
        _list(FAULTS.values())
        return 0
    if options.output is not None:
        # hours before it is written
        surroundings(options.output)
    names = dict.fromkeys(options.faults or FAULTS)
    faults = [find_fault(name) for name in names]
    width = max(len(fault.name) for fault in faults)
    found = []
    with _runner(options, runner) as run:
        for detection in _search(faults, options, run):
            found.append(detection)
            if not options.json:
                print(detection_line(detection, width), flush=True)
    sensitivity = Sensitivity(found)
    if options.json:
        print(json.dumps(_document(sensitivity), indent=1))
    else:
        _tell(sensitivity, FAULTS)
    if options.output is not None:
        write_page(options.output, sensitivity_page(sensitivity, FAULTS))
    return int(bool(sensitivity.shortcomings()))


def _tell(sensitivity: Sensitivity, faults: Mapping[str, Fault]) -> None:
    """Print how many were found, which were not and why, and what is too little."""
    print(f"\n{sensitivity.summary()}")
    for each in sensitivity.missed:
        why = faults[each.fault].why_not_found
        print(f"not found: {each.fault}{f' ({why})' if why else ''}")
    for shortcoming in sensitivity.shortcomings():
        print(f"too little: {shortcoming}")


def _list(faults: Iterable[Fault]) -> None:
    for fault in faults:
        source = f" {fault.source}" if fault.source else ""
        print(f"{fault.name} ({fault.part}): {fault.told}{source}")


@contextmanager
def _runner(options: argparse.Namespace, given: RunStage | None) -> Iterator[RunStage]:
    """Yield what runs a stage; what is compiled is kept beside the state, where there is one."""
    from normbench.commands.stages import StageRunner, on_one_core

    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="normbench-") as work, on_one_core():
        state = options.state
        compiled = Path(work) if state is None else state.with_name(f"{state.name}.compiled")
        yield StageRunner(compiled, options.limit)


def _search(
    faults: Sequence[Fault], options: argparse.Namespace, run: RunStage
) -> Iterator[Detection]:
    """Yield what becomes of each fault, as soon as it is known and stored.

    Raises ValueError where a stage fails without a fault, and for a state of other circumstances.
    """
    from normbench.commands.stages import STAGES
    from normbench.storage.sensitivity import append_detection

    stages = [STAGES[name] for name in STAGE_NAMES if name in (options.stage or STAGE_NAMES)]
    circumstances = _circumstances([stage.name for stage in stages])
    known = _known(options.state, circumstances)
    for name, part in (("", ""), *((fault.name, fault.part) for fault in faults)):
        detection = known.get(name)
        if detection is None:
            detection = _gone_through(name, part, stages, run, circumstances)
            if name or _all_green(detection):
                known[name] = detection
                if options.state is not None:
                    append_detection(options.state, detection)
        if name:
            yield detection


def _gone_through(
    name: str, part: str, stages: Sequence[Stage], run: RunStage, circumstances: dict[str, Any]
) -> Detection:
    """Take a fault through the stages up to the first that fails.

    Without one, any code but 0 is the end, as none would be found by such a stage.
    """
    from normbench.storage.sensitivity import Detection

    ends: list[StageEnd] = []
    for stage in stages:
        ends.append(run(stage, name or None))
        if ends[-1].red or (ends[-1].code and not name):
            break
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return Detection(fault=name, part=part, ends=tuple(ends), date=date, **circumstances)


def _all_green(detection: Detection) -> bool:
    """Return True; raises ValueError where a stage did not pass though no fault was planted."""
    if bad := next((end for end in detection.ends if end.code), None):
        said = ": ".join(filter(None, (bad.test, bad.told)))
        raise ValueError(
            f"the stage {bad.stage} ended with {bad.code} though no fault was planted ({said}); "
            "expected it to pass, as its failures tell nothing otherwise: put that right first, "
            "or leave the stage out with --stage"
        )
    return True


def _circumstances(stages: list[str]) -> dict[str, Any]:
    """Return what all findings of one measurement have in common."""
    import normbench
    from normbench.storage.environment import environment

    here = environment(Path(normbench.__file__).parents[1])
    return {
        "stages": tuple(stages),
        "torch": here["torch"],
        "processor": here["processor"],
        "commit": here["commit"],
    }


def _known(state: Path | None, circumstances: dict[str, Any]) -> dict[str, Detection]:
    """Return what a state has, by fault; raises ValueError where that was measured otherwise.

    Also for a folder, hours before it is written to.
    """
    if state is not None and state.is_dir():
        raise ValueError(f"{state}: expected a file to write to, and it is a folder")
    from normbench.storage.sensitivity import read_detections

    known = {} if state is None else {each.fault: each for each in read_detections(state)}
    for each in known.values():
        for name in ("stages", "torch", "processor"):
            then, now = getattr(each, name), circumstances[name]
            if then != now:
                raise ValueError(
                    f"{state}: it has what was found with {name} = {then}, and this is {now}; "
                    "expected a state of the same circumstances: name another file with --state"
                )
    return known


def _document(sensitivity: Sensitivity) -> dict[str, Any]:
    faults = [
        {
            "fault": each.fault,
            "part": each.part,
            "found_by": each.found.stage if each.found else None,
            "seconds": round(each.seconds, 1),
            "test": each.found.test if each.found else "",
            "told": each.found.told if each.found else "",
            "stages": [end.model_dump(mode="json") for end in each.ends],
        }
        for each in sensitivity.detections
    ]
    return {
        "faults": faults,
        "found": len(sensitivity.found),
        "found_soon": len(sensitivity.soon),
        "by_stage": sensitivity.by_stage,
        "shortcomings": sensitivity.shortcomings(),
    }
