"""What several sessions have stored, put together in the folder of one."""

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from normbench.results import UNFINISHED, RunResult
from normbench.storage.baseline import all_of
from normbench.storage.environment import PROCESSOR
from normbench.storage.pictures import StoredPictures, read_pictures, store_pictures
from normbench.storage.session import SessionError, StoredSession

# What sessions must have been asked alike, or they are no parts of one.
ALIKE = (
    *("tier", "seeds", "first_seed", "norm", "norm_only", "regularizer", "target"),
    *("minimum_effect", "confirm", "strict", "max_undecided", "replay"),
)
# Folders of a file each, named by what it is about.
COPIED = ("checks", "traces", "case-traces")


def require_parts(sessions: Sequence[StoredSession]) -> None:
    """Raise SessionError where the sessions are no parts of one, and say what keeps them from it.

    That is one that has not finished or had a fault planted, another build of torch, other options
    or data, runs on GPUs beside some on CPUs, a case with a verdict in two of them, and a shard
    that is missing or of another selection.
    """
    for session in sessions:
        if session.document.status != "finished":
            raise SessionError(
                f"the session {session.name} was {session.document.status}: expected finished "
                "ones; go on with it by --bench-resume first"
            )
        if session.planted:
            raise SessionError(
                f"the session {session.name} had the fault {session.planted} planted: expected "
                "sessions of sound code"
            )
    require_one("torch", ((s.name, str(s.document.environment.get("torch"))) for s in sessions))
    for option in ALIKE:
        require_one(option, ((s.name, str(s.document.options.get(option))) for s in sessions))
    require_one(
        "device",
        ((s.name, run.device.partition(":")[0]) for s in sessions for run in s.results.values()),
    )
    # by what was trained on: of what a baseline alone has, a session names the published data
    contents: dict[str, list[tuple[str, str]]] = {}
    for session in sessions:
        for run in session.results.values():
            contents.setdefault(run.spec.dataset, []).append((session.name, run.data))
    for dataset, told in contents.items():
        require_one(f"the data of {dataset}", told)
    _require_all_shards(sessions)
    judged: dict[str, str] = {}
    for session in sessions:
        for stored in session.judged_cases:
            other = judged.setdefault(stored.case.id, session.name)
            if other != session.name:
                raise SessionError(
                    f"the case {stored.case.id} was run in {other} and in {session.name}: expected "
                    "sessions of different cases, such as the shards of one selection"
                )


def require_one(what: str, told: Iterable[tuple[str, str]]) -> None:
    """Raise SessionError where sessions, by their names, tell different texts; "" tells nothing."""
    found: dict[str, str] = {}
    for name, text in told:
        if text:
            found.setdefault(text, name)
    if len(found) > 1:
        listed = " and ".join(f"{text} in {name}" for text, name in found.items())
        raise SessionError(f"{what} is {listed}: expected the same in all sessions to be merged")


def _require_all_shards(sessions: Sequence[StoredSession]) -> None:
    shards = [str(s.document.options.get("shard") or "") for s in sessions]
    if not any(shards):
        return
    counts = sorted({shard.partition("/")[2] for shard in shards})
    if len(counts) > 1 or "" in counts:
        names = [session.name for session in sessions]
        told = ", ".join(f"{n}: {s or 'all'}" for n, s in zip(names, shards, strict=True))
        raise SessionError(
            f"these are no shards of one selection ({told}); expected the same number of shards"
        )
    numbers = [int(shard.partition("/")[0]) for shard in shards]
    every = range(1, int(counts[0]) + 1)
    if missing := [f"{number}/{counts[0]}" for number in every if number not in numbers]:
        raise SessionError(
            f"the shards {', '.join(missing)} are missing: expected the sessions of all of them"
        )
    if len(set(numbers)) < len(numbers):
        raise SessionError(
            f"a shard is there twice, of {', '.join(sorted(shards))}: expected one session of each"
        )
    _require_one_selection(sessions)


def _require_one_selection(shards: Sequence[StoredSession]) -> None:
    """Raise SessionError where shards were dealt of different cases, so that some are in none."""
    first, *others = shards
    for other in others:
        differing = set(first.document.whole) ^ set(other.document.whole)
        if differing:
            named = min(differing)
            has, lacks = (first, other) if named in first.document.whole else (other, first)
            raise SessionError(
                f"the case {named} was selected in {has.name} and not in {lacks.name}: expected "
                "shards of one selection, with the same tests, -k, -m and options"
            )
    there = {stored.case.id for shard in shards for stored in shard.document.cases}
    if lost := sorted(set(first.document.whole) - there):
        raise SessionError(
            f"the case {lost[0]} is in none of the shards: expected shards that were dealt by one "
            "version of normbench, with the same networks of your own"
        )


def joined_runs(sessions: Iterable[StoredSession]) -> list[RunResult]:
    """Return the runs of all sessions, in the order in which they ended.

    Of a run that several have, as of tests that look at whole grids, one is taken. Raises
    SessionError where such runs differ though the machines do not: the sessions have trained
    different things.
    """
    found: dict[str, RunResult] = {}
    places: dict[str, tuple[object, ...]] = {}
    for session in sessions:
        for key, run in session.results.items():
            known, place = found.setdefault(key, run), _place(session, run)
            there = places.setdefault(key, place)
            if known.status in UNFINISHED:
                found[key], places[key] = run, place
            # elsewhere, runs are equal up to rounding alone
            elif run.status in UNFINISHED or place != there:
                continue
            elif _trained(known) != _trained(run):
                raise SessionError(
                    f"the run of {run.spec} came out differently in {session.name} than in another "
                    f"session ({_told(known)} and {_told(run)}); expected sessions of one code, "
                    "torch and kind of machine"
                )
    return sorted(found.values(), key=lambda run: run.ended)


def _place(session: StoredSession, run: RunResult) -> tuple[object, ...]:
    """Return what decides of a run's last bits beside its spec, data and code."""
    told = session.document.environment
    return run.device, run.threads, *(told.get(name) for name in PROCESSOR)


def _trained(run: RunResult) -> tuple[object, ...]:
    # one that diverged has epochs as well, and no figures of its end
    figures = [(epoch.test_accuracy, epoch.test_loss) for epoch in run.epochs[-1:]]
    return run.status, figures, run.fingerprint


def _told(run: RunResult) -> str:
    return f"{100 * run.test_accuracy:.2f} %" if run.status == "ok" else run.status


def joined_environment(sessions: Sequence[StoredSession]) -> dict[str, Any]:
    """Return what all say of machine and software; where they differ, the texts of all."""
    environments: list[Mapping[str, Any]] = [s.document.environment for s in sessions]
    keys = dict.fromkeys(key for environment in environments for key in environment)
    joined = {key: all_of([environment.get(key) for environment in environments]) for key in keys}
    gpus = dict.fromkeys(gpu for environment in environments for gpu in environment.get("gpus", ()))
    return joined | {"gpus": list(gpus)}


def copy_findings(sessions: Iterable[StoredSession], folder: Path) -> None:
    """Copy checks, traces and pictures to a session's folder; of the same one, the first."""
    pictures: dict[str, list[StoredPictures]] = {}
    for session in sessions:
        for name in COPIED:
            for file in sorted((session.folder / name).glob("*.json")):
                (folder / name).mkdir(exist_ok=True)
                if not (target := folder / name / file.name).exists():
                    shutil.copyfile(file, target)
        for dataset, stored in read_pictures(session.folder).items():
            pictures.setdefault(dataset, []).append(stored)
    for dataset, parts in pictures.items():
        store_pictures(folder, dataset, _joined_pictures(parts))


def _joined_pictures(parts: Sequence[StoredPictures]) -> StoredPictures:
    indices = [index for part in parts for index in part.indices]
    labels = [label for part in parts for label in part.labels]
    first = {index: place for place, index in reversed(list(enumerate(indices)))}
    places = [first[index] for index in sorted(first)]
    images = np.concatenate([part.images for part in parts])[places]
    return StoredPictures(images, tuple(sorted(first)), tuple(labels[place] for place in places))


def seconds_taken(sessions: Iterable[StoredSession]) -> float:
    """Return how long at least one of the sessions ran."""
    spans = sorted((started_at(session), session.document.seconds) for session in sessions)
    taken, until = 0.0, -math.inf
    for start, seconds in spans:
        taken += max(0.0, start + seconds - max(start, until))
        until = max(until, start + seconds)
    return taken


def started_at(session: StoredSession) -> float:
    """Return when a session was begun, in seconds since 1970."""
    return datetime.fromisoformat(session.document.started).timestamp()
