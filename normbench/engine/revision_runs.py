"""Runs of one case at revisions of its code, each in a process of its own, and stored.

A revision is a commit of the suite's own repository, which then runs itself; a commit of a norm's
repository, which the suite of this process imports the norm from; or a release of torch, as an
environment of tox.
"""

import hashlib
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import normbench
from normbench.cases.case import TIERS
from normbench.cases.catalogue import SUITE, find_case
from normbench.cases.errors import CasesError
from normbench.cases.grids import cases_file_of
from normbench.check.trace_record import EPOCHS, LEFT_OVER, shortened
from normbench.engine.processes import RunProcess, environment_of_a_user, last_words
from normbench.engine.revisions import GitError, Repository, Revision, Worktrees
from normbench.models.families import norm_family
from normbench.results import RunResult
from normbench.spec import RunSpec
from normbench.storage.environment import available_cores, processor
from normbench.storage.files import write_atomic
from normbench.storage.runs import RunStore
from normbench.training.datasets import ENVIRONMENT_VARIABLE
from normbench.training.fingerprints import code_digest, sources_digest

# What a trace trains: so many batches in each of its epochs.
TRACE_BATCHES = 8

# How the suite runs what --bench-cases names, and nothing else, since its first days.
OWN_CASES = ("bench/test_own_cases.py", "--bench-tier", TIERS[0])

# Prints where Python would import a package from, without importing it.
WHERE = """\
import importlib.util, sys
found = importlib.util.find_spec(sys.argv[1])
print(found and (found.origin or next(iter(found.submodule_search_locations))))
"""


class CannotRun(ValueError):
    """A revision at which the case cannot be run; in one line, why."""


@dataclass(frozen=True)
class NamedCase:
    """A case by its id, of the suite or of the user's own cases file; ``data`` is the data root."""

    id: str
    data: Path
    file: Path | None = None

    def spec(self, suite: Path = SUITE) -> RunSpec:
        """Return the spec of its first run, by the suite that lies in a folder.

        Raises CasesError where that has no such case.
        """
        files = sorted((suite / "cases").glob("*.toml")) if self.file is None else [self.file]
        return find_case(self.id, files, self.data).spec


def traced(spec: RunSpec) -> RunSpec:
    """Return a run of a few batches, which goes through all that a whole one does."""
    return shortened(spec, TRACE_BATCHES)


@dataclass(frozen=True)
class Start:
    """How the suite is started at a revision: a command, its arguments to come, and where.

    ``shown`` is what a user types for it: commands, the last of which takes the arguments.
    """

    spec: RunSpec
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    shown: tuple[str, ...]


class Place(Protocol):
    """Where a case is run at a revision; places of equal ``identity`` come to equal runs."""

    @property
    def identity(self) -> dict[str, str]: ...

    def start(self, revision: Revision) -> Start:
        """Raises CannotRun where the revision has no such case."""
        ...


class Commits:
    """Commits of a repository, checked out in worktrees.

    Those of the suite run themselves, and a case is what it was in them. Those of a norm are
    imported by the suite of this process, started in the same folder of the worktree as the one of
    the checkout that the user named. Raises GitError for a case that has nothing of the repository.
    """

    def __init__(
        self, case: NamedCase, worktrees: Worktrees, suite: bool, process: RunProcess
    ) -> None:
        self._case = case
        self._worktrees, self._process = worktrees, process
        self._suite = suite
        # of the suite's own cases, each commit has its own
        self._spec = None if suite and case.file is None else case.spec()
        self._package = "normbench"
        if self._spec is not None and not suite:
            if norm_family(self._spec.norm) is not None:
                raise GitError(
                    f"{worktrees.repository.root} is not the suite's repository, and "
                    f"{self._spec.norm} in {case.id} is a norm of the suite's: expected a case "
                    "with a norm of that repository, package.module:factory, in its place, or "
                    "another --repo"
                )
            self._package = re.split(r"[.:]", self._spec.norm)[0]

    @property
    def identity(self) -> dict[str, str]:
        import torch

        repository = self._worktrees.repository
        ours = {"folder": str(repository.inside), "suite": sources_digest()}
        return {
            "repository": str(repository.root),
            "python": sys.executable,
            "torch": torch.__version__,
            **({} if self._suite else ours),
            **_machine(),
        }

    def start(self, revision: Revision) -> Start:
        worktree = self._worktrees.folder(revision)
        inside = Path() if self._suite else self._worktrees.repository.inside
        folder = worktree / inside
        if not folder.is_dir():
            raise CannotRun(f"it has no folder {inside}")
        if self._suite and not (folder / OWN_CASES[0]).is_file():
            raise CannotRun(f"it has no {OWN_CASES[0]}, by which a single case is run")
        path = [folder, *(() if self._suite else (Path(normbench.__file__).parents[1],))]
        environment = _environment(self._case.data, path)
        self._require_of_worktree(folder, environment)
        command = ("pytest", *OWN_CASES) if self._suite else ("normbench", "run")
        temporary = Path(tempfile.gettempdir()) / revision.short
        add = ("git", "-C", self._worktrees.repository.root, "worktree", "add", "--detach")
        return Start(
            self._spec_at(folder),
            (sys.executable, "-m", *command),
            folder,
            environment,
            (
                shlex.join(map(str, (*add, temporary, revision.name))),
                shlex.join(("cd", str(temporary / inside))),
                f"PYTHONPATH=. python -m {shlex.join(command)}",
            ),
        )

    def _spec_at(self, folder: Path) -> RunSpec:
        if self._spec is not None:
            return self._spec
        try:
            return self._case.spec(folder / "bench")
        except CasesError as error:
            raise CannotRun(str(error).splitlines()[0]) from error

    def _require_of_worktree(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Refuse to run another package than that of the revision, as one that is installed."""
        command = (sys.executable, "-c", WHERE, self._package)
        output = self._process(command, folder, environment).output
        where = (output.splitlines() or ["None"])[-1]
        if where == "None":
            raise CannotRun(f"it has no package {self._package} in {folder.name}")
        if not Path(where).resolve().is_relative_to(folder.resolve()):
            raise CannotRun(
                f"{self._package} is imported from {where}, and not from the revision's files: "
                "expected it in the folder where bisect is started, or in that of --repo"
            )


class ToxEnvironments:
    """The torch releases that the tox.ini of a checkout of the suite has environments for.

    The checkout is run as it is. A norm of the user's own is imported from the current folder.
    Raises GitError where there is no tox.ini, or no tox.
    """

    def __init__(self, case: NamedCase, repository: Repository, process: RunProcess) -> None:
        self._case, self._repository, self._process = case, repository, process
        self._spec = case.spec()
        if not (repository.root / "tox.ini").is_file():
            raise GitError(
                f"{repository.root} has no tox.ini: expected a clone of normbench, in which "
                "--torch finds its environments; name one with --repo"
            )

    def line(self, first: str, last: str) -> list[Revision]:
        """Return the releases from the first to the last, for the Python of this process."""
        command = (sys.executable, "-m", "tox", "list", "--no-desc", "-q")
        listed = self._process(command, self._repository.root, environment_of_a_user())
        if listed.code:
            raise GitError(
                f"tox cannot list its environments ({last_words(listed.output)}): expected tox 4 "
                "beside normbench; pip install 'normbench[tox]'"
            )
        found = re.findall(rf"^{_python()}-torch(\d)(\d+)$", listed.output, re.MULTILINE)
        releases = sorted((int(major), int(minor)) for major, minor in found)
        names = [f"{major}.{minor}" for major, minor in releases]
        ends = [names.index(end) if end in names else -1 for end in (first, last)]
        if -1 in ends or ends[0] >= ends[1]:
            raise GitError(
                f"--torch {first}:{last}: expected an older and a newer release of those that "
                f"{self._repository.root / 'tox.ini'} has for {_python()}: {', '.join(names)}"
            )
        return [Revision(f"torch-{name}") for name in names[ends[0] : ends[1] + 1]]

    @property
    def identity(self) -> dict[str, str]:
        return {
            "checkout": str(self._repository.root),
            "files": self._repository.state(),
            "norm": code_digest(self._spec),
            "python": _python(),
            **_machine(),
        }

    def start(self, revision: Revision) -> Start:
        name = revision.name.removeprefix("torch-").replace(".", "")
        own = norm_family(self._spec.norm) is None
        passed = ("-x", "testenv.pass_env+=PYTHONPATH") if own else ()
        command = ("tox", "run", "-qq", "-e", f"{_python()}-torch{name}", *passed, "--", *OWN_CASES)
        path = f"PYTHONPATH={shlex.quote(str(Path.cwd()))} " if own else ""
        root = self._repository.root
        return Start(
            self._spec,
            (sys.executable, "-m", *command),
            root,
            _environment(self._case.data, [Path.cwd()] if own else []),
            (shlex.join(("cd", str(root))), f"{path}python -m {shlex.join(command)}"),
        )


def _python() -> str:
    return f"py{sys.version_info.major}{sys.version_info.minor}"


def _machine() -> dict[str, str]:
    """Return what decides, beside the code, whether two runs come out equal to the bit."""
    told = {**processor(), "cores": available_cores(), "threads": os.environ.get("OMP_NUM_THREADS")}
    return {name: str(value) for name, value in told.items()}


def _environment(data: Path, path: Sequence[Path]) -> dict[str, str]:
    """Return a user's environment, in which ``path`` is what Python imports from first."""
    kept = environment_of_a_user()
    before = [str(Path(entry).absolute()) for entry in kept.get("PYTHONPATH", "").split(os.pathsep)]
    entries = [*map(str, path), *(before if kept.get("PYTHONPATH") else ())]
    return {**kept, ENVIRONMENT_VARIABLE: str(data), "PYTHONPATH": os.pathsep.join(entries)}


class RevisionRuns:
    """The runs of a case at revisions, stored below ``state``: each is trained once.

    ``whole`` says whether a run trains what the case says, or is a trace of a few batches.
    """

    def __init__(
        self, case: NamedCase, place: Place, state: Path, whole: bool, device: str,
        process: RunProcess,
    ) -> None:  # fmt: skip
        self._place, self._process = place, process
        self._whole, self._device = whole, device
        trace = [] if whole else [EPOCHS, TRACE_BATCHES, LEFT_OVER]
        own = None if case.file is None else case.spec().to_dict()
        told = [case.id, str(case.data), own, trace, device, place.identity]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = state.absolute() / digest

    def runs(self, revision: Revision, count: int) -> list[RunResult]:
        """Return the runs of the first ``count`` seeds; raises CannotRun."""
        store = RunStore(self.folder / revision.short)
        known = len(store.results())
        if known < count:
            for run in self._train(revision, range(known, count)):
                store.append(run)
            store.close()
        runs = {run.spec.seed: run for run in store.results().values()}
        return [runs[seed] for seed in range(count)]

    def again(self, revision: Revision) -> RunResult:
        """Return the run of the first seed, trained anew and not stored."""
        return self._train(revision, range(1))[0]

    def command(self, revision: Revision, count: int) -> list[str]:
        """Return the commands that a user types for the runs of so many seeds."""
        start = self._place.start(revision)
        *before, last = start.shown
        arguments = shlex.join(self._arguments(self._file(revision, start), range(count)))
        return [*before, f"{last} {arguments}"]

    def _train(self, revision: Revision, seeds: range) -> list[RunResult]:
        start = self._place.start(revision)
        with tempfile.TemporaryDirectory(prefix="normbench-") as folder:
            apart = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--bench-results", folder)
            arguments = (*self._arguments(self._file(revision, start), seeds), *apart)
            ended = self._process((*start.command, *arguments), start.folder, start.environment)
            found = _rows(Path(folder))
        if missing := [seed for seed in seeds if seed not in found]:
            raise CannotRun(f"no row of seed {missing[0]}: {last_words(ended.output)}")
        return [found[seed] for seed in seeds]

    def _file(self, revision: Revision, start: Start) -> Path:
        """Write the cases file of a revision, where it stays for the user."""
        file = self.folder / revision.short / "bisect.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        spec = start.spec if self._whole else traced(start.spec)
        write_atomic(file, cases_file_of(spec))
        return file

    def _arguments(self, file: Path, seeds: range) -> tuple[str, ...]:
        # a range is known to the suite since it can confirm; it is not needed for a trace
        chosen = f"{seeds.start}:{seeds.stop}" if seeds.start else str(len(seeds))
        device = () if self._device == "auto" else ("--bench-device", self._device)
        return ("--bench-cases", str(file), "--bench-seeds", chosen, *device)


def _rows(results: Path) -> dict[int, RunResult]:
    """Return what a session has stored, by seed; raises CannotRun where that cannot be read."""
    try:
        stores = [RunStore(file.parent) for file in results.glob("runs/*/runs.jsonl")]
        return {run.spec.seed: run for store in stores for run in store.results().values()}
    except ValueError as error:
        raise CannotRun(str(error)) from error
