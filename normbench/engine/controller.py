"""A session from its opening to its end, in the process that hears of every test."""

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from normbench.analysis.claims import judge
from normbench.analysis.comparison import Comparison, Reference
from normbench.analysis.spread import Spread
from normbench.analysis.verdicts import shortcomings, with_verdicts
from normbench.cases.case import Case, Claim
from normbench.engine.options import Options
from normbench.engine.runner import devices_of, found_means, reference_of, replay_of
from normbench.locks import locks_work
from normbench.report.writer import needed_pictures, write_all
from normbench.results import RunResult
from normbench.storage.baseline import Baseline, BaselineError
from normbench.storage.documents import Selection, Status, StoredCase, StoredClaim
from normbench.storage.environment import PROCESSOR, environment
from normbench.storage.pictures import StoredPictures, store_pictures
from normbench.storage.runs import RunStore
from normbench.storage.session import Session, SessionError, StoredSession, read_session
from normbench.storage.traces import drop_case_traces
from normbench.training.data import ensure_dataset, known_dataset, load_dataset
from normbench.training.datasets import (
    DatasetDamaged,
    DatasetUnavailable,
    DatasetUnusable,
    facts_of,
    facts_with_contents,
    find_dataset,
)
from normbench.training.fingerprints import code_digest, fingerprint


class UnusableInput(ValueError):
    """Something that the user gave and that nothing can be trained with."""


@dataclass(frozen=True)
class SessionOutcome:
    """What a session came to, as it is stored, and what the user should know beside it.

    ``left`` is how many of its ``cases`` an interrupted one has not run.
    """

    session: StoredSession | None = None
    notes: tuple[str, ...] = ()
    cases: int = 0
    left: int | None = None

    @property
    def shortcomings(self) -> list[str]:
        """Why the session is no pass, whatever its tests say: what it was to show and did not."""
        return shortcomings(self.session) if self.session and self.left is None else []


class Controller:
    """Opens a session, notes the outcome of each case, and closes it with its verdicts.

    ``name`` is a new session's; ``root`` is the folder whose commit is told. Raises ValueError for
    what the user gave and nothing can be trained with.
    """

    def __init__(self, options: Options, name: str, root: Path) -> None:
        self.options = options
        self.root = root
        self.reference = reference_of(options)
        self.devices = devices_of(options)
        self.session = self._resumed() if options.resume else self._new(name)
        self.store = RunStore(self.session.folder)
        self.outcomes: dict[str, str] = {}
        self.seeds: dict[str, int] = {}
        self.skipped: dict[str, str] = {}
        self.judged: set[str] = set()
        self.checked: set[str] = set()
        self._cases: dict[str, Case] = {}
        self._tests: dict[str, str] = {}
        self._elsewhere: dict[str, Case] = {}
        self._claims: list[Claim] = []

    def _new(self, name: str) -> Session:
        planted = self.options.plant or ""
        return Session(self.options.results, name, options=self.options.to_dict(), planted=planted)

    def _resumed(self) -> Session:
        try:
            session = Session.interrupted(self.options.results, self.options.to_dict())
            session.require_torch(torch.__version__)
            if str(session.folder.resolve()) in self.options.baselines:
                raise SessionError(
                    f"the session to go on with, {session.folder}, cannot be its own baseline; "
                    "give another --bench-baseline"
                )
        except SessionError as error:
            raise UnusableInput(f"--bench-resume: {error}") from error
        return session

    def prepare(self, selection: Selection, workers: int) -> list[str]:
        """Check the data sets and make the session's folder, before the first case trains.

        Returns what the user should know. Raises ValueError for a folder that cannot be written
        to, and for damaged data.
        """
        self._cases = {stored.case.id: stored.case for stored in selection.cases}
        self._tests = selection.tests
        self._elsewhere = {stored.case.id: stored.case for stored in selection.elsewhere}
        known = self._elsewhere | self._cases
        self._claims = [stored.claim(known) for stored in selection.claims]
        if self.options.grid.sequential:
            self._require_known_spread()
        if self.options.save_baseline is not None:
            self._require_writable(self.options.reference)
        self.session.workers = workers
        here = environment(self.root)
        if self.session.resumed and not _on_one_processor(self.session.environment, here):
            # they would stand for rows that are trained here as well
            drop_case_traces(self.session.folder)
        self.session.environment = here
        self.session.cases, self.session.claims = selection.cases, selection.claims
        self.session.whole = selection.whole
        self.session.datasets = facts_of(case.spec.dataset for case in self._cases.values())
        notes = self._unavailable()
        replay = replay_of(self.options, self.session.folder)
        if replay is not None and not replay.sources:
            notes.append(
                "--bench-replay: no earlier session has traced its cases, so that all are trained; "
                "the next session can take rows of this one"
            )
        self.session.open()
        if not locks_work(self.session.folder):
            notes.append(
                f"{self.options.results} lies on a file system whose locks do not work: each "
                "worker writes a file of its own, and nothing keeps another process from resuming "
                "this session while it runs"
            )
        if self.session.resumed and (outdated := self.store.reopen(self.is_current)):
            notes.append(
                f"{outdated} of the stored runs will be trained again: the code, a network, a "
                "recipe or the data have changed since"
            )
        return notes

    def _unavailable(self) -> list[str]:
        """Make sure of the data sets; return what is said of those that cannot be had."""
        notes = []
        for name in sorted({case.spec.dataset for case in self._cases.values()}):
            try:
                ensure_dataset(name, self.options.data)
            except DatasetUnavailable as unavailable:
                notes.append(f"skipping {name}: {unavailable}")
            except DatasetDamaged as error:
                raise UnusableInput(str(error)) from error
        return notes

    def is_current(self, run: RunResult) -> bool:
        """Whether the run is what its spec comes to with the code, network, recipe and data of now.

        Of data that cannot be had now, nothing has changed that would be seen.
        """
        spec = run.spec
        try:
            expected = fingerprint(spec), code_digest(spec)
        except ValueError:  # there is no such network, recipe or data set any more
            return False
        if (run.fingerprint, run.code) != expected:
            return False
        try:
            data = load_dataset(spec.dataset, self.options.data, torch.device("cpu"))
        except (DatasetUnavailable, DatasetUnusable):
            return True
        return not run.data or run.data == data.content

    def _require_known_spread(self) -> None:
        reference = self.reference
        if reference is None:
            return
        cases = self._cases.values()
        unknown = next((c for c in cases if not reference.variance(c.spec).known), None)
        if unknown is not None:
            raise UnusableInput(
                f"--bench-seeds auto: the baseline {reference.name} has no two runs of one "
                f"case on {unknown.spec.dataset} with the recipe {unknown.spec.recipe}, which "
                f"{unknown.id} needs; give --bench-seeds a number, or select fewer cases"
            )

    @staticmethod
    def _require_writable(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UnusableInput(
                f"--bench-save-baseline: cannot write to {folder}: {error}; expected a folder to "
                "write to"
            ) from error

    @property
    def cases(self) -> list[Case]:
        return list(self._cases.values())

    def record_outcome(self, case: str, outcome: str, seeds: int = 0, skipped: str = "") -> None:
        """Note a test's outcome for its case; of several tests of one case, a failed one counts.

        ``seeds`` is the number of runs that it asked for, 0 where that is not known; ``skipped``
        says why it was.
        """
        if skipped:
            self.skipped[case] = skipped
        if self.outcomes.get(case) != "failed":
            self.outcomes[case] = outcome
        if seeds:
            self.seeds[case] = max(seeds, self.seeds.get(case, 0))

    def record_crash(self, worker: str, test: str) -> str | None:
        """Store what a worker was at when it died in a test; return its case's id.

        It may have died before it had begun to train: then the first of the runs that the test's
        case still lacks has crashed.
        """
        name = self.store.record_crash(worker)
        if name is None and (case := self._cases.get(self._tests.get(test, ""))):
            name = case.id
            if lacking := next((s for s in case.specs if self.store.find(s) is None), None):
                told = f"the process of worker {worker} died before it trained this run"
                ended = datetime.now(UTC).isoformat(timespec="seconds")
                self.store.append(RunResult(lacking, "crashed", told, worker=worker, ended=ended))
        return name

    def finish(self, *, finished: bool) -> SessionOutcome:
        """Close the session with its verdicts, save its baseline, then draw it; lose nothing.

        Without a case, claim or check that was run there is nothing to close with. What fails in
        drawing is a note, as all that was measured is stored by then.
        """
        status: Status = "finished" if finished else "interrupted"
        if not (self.outcomes or self.judged or self.checked):
            if not self.session.is_open:
                return SessionOutcome()
            self.session.write(status)
            self.store.close(finished=finished)
            self.session.close()
            return SessionOutcome(cases=len(self._cases), left=self._left(finished))
        results = self.store.results()
        notes = self._note_datasets(results.values())
        self._judge(results, self._as_baseline(results))
        self.session.write(status)
        self.store.close(finished=finished)
        self.session.close()
        stored = read_session(self.session.folder)
        notes += [self._save_baseline(stored)] if self.options.save_baseline else []
        notes += self._keep_pictures(stored)
        notes += write_all(stored)
        return SessionOutcome(stored, tuple(notes), len(self._cases), self._left(finished))

    def _note_datasets(self, runs: Iterable[RunResult]) -> list[str]:
        """Have the session keep the facts of its data sets, with what its runs say of them.

        Of one that a test trains on without a case, they have not been asked for yet. Returns what
        is said of other copies of built-in ones, as another decoder makes of the JPEG images.
        """
        contents: dict[str, set[str]] = {name: set() for name in self.session.datasets}
        for run in runs:
            if run.spec.dataset not in contents:
                known_dataset(run.spec.dataset, self.options.data)
            contents.setdefault(run.spec.dataset, set()).update({run.data} - {""})
        self.session.datasets = facts_with_contents(contents)
        return [
            f"{name} has the fingerprint {found.content}, and targets and baselines stand on "
            f"{usual}: its images are another copy, or were decoded otherwise (docs/data.md)"
            for name, found in self.session.datasets.items()
            if found.content and (usual := find_dataset(name).content) not in ("", found.content)
        ]

    def _left(self, finished: bool) -> int | None:
        return None if finished else sum(case not in self.outcomes for case in self._cases)

    def comparison_so_far(self) -> Comparison | None:
        """Hold the runs that there are against the baselines, if any were asked for."""
        if self.reference is None or not self.session.is_open:
            return None
        return self._compared(self.reference, self._as_baseline(self.store.results()))

    def _compared(self, reference: Reference, now: Baseline) -> Comparison:
        size = self.options.selection_size
        if self._elsewhere:
            whole = [*self._cases.values(), *self._elsewhere.values()]
            size = sum(reference.baseline(case.spec) is not None for case in whole)
        return reference.compare(now, size)

    def _judge(self, results: Mapping[str, RunResult], now: Baseline) -> None:
        """Give the session its verdicts: on the cases, the claims, and beside the baseline."""
        self.session.cases = with_verdicts(
            self._cases.values(),
            self.outcomes,
            results,
            Spread(now),
            self.reference,
            self.seeds,
            self.skipped,
        )
        self.session.claims = [
            judged_claim(claim, results) if claim.name in self.judged else StoredClaim.of(claim)
            for claim in self._claims
        ]
        if self.reference is not None:
            note_comparison(self.session, self._compared(self.reference, now))

    def _as_baseline(self, results: Mapping[str, RunResult]) -> Baseline:
        return as_baseline(self.session, self.options.grid.sequential, results)

    def _save_baseline(self, stored: StoredSession) -> str:
        """Write the baseline that was asked for; return what became of it."""
        name = self.options.save_baseline or ""
        now = Baseline.of_session(stored, confirming=False)
        finished = stored.document.status == "finished"
        bad = now.ended_badly
        if bad or not finished or not now.cases:
            why = "it has no runs" if finished else "it was interrupted"
            if bad:
                why = f"a run of {len(bad)} of its cases ended badly"
            return f"the session is no baseline, as {why}: {name} was not written"
        file = self.options.reference / f"{name}.json"
        try:
            dataclasses.replace(now, name=name).write(file)
        except BaselineError as error:
            return f"{error}; the runs are in {self.session.folder}"
        return f"baseline {name} written to {file}"

    def _keep_pictures(self, stored: StoredSession) -> list[str]:
        """Store the test images that the report shows; return what kept some from it."""
        dataset = ""
        try:
            for dataset, indices in needed_pictures(stored).items():
                store_pictures(stored.folder, dataset, self._pictures(dataset, sorted(indices)))
        except Exception as error:
            return [f"the report is without images of {dataset}: {type(error).__name__}: {error}"]
        return []

    def _pictures(self, dataset: str, indices: Sequence[int]) -> StoredPictures:
        data = load_dataset(dataset, self.options.data, torch.device("cpu"))
        images = data.test_images[list(indices)].permute(0, 2, 3, 1).contiguous()
        labels = data.test_labels[list(indices)]
        return StoredPictures(images.numpy(), tuple(indices), tuple(labels.tolist()))


def as_baseline(session: Session, sequential: bool, results: Mapping[str, RunResult]) -> Baseline:
    """Return a session's runs as they are held against a baseline."""
    return Baseline.of_runs(
        session.name,
        created=session.started_at,
        workers=session.workers,
        sequential=sequential,
        environment=session.environment,
        runs=results.values(),
    )


def judged_claim(claim: Claim, results: Mapping[str, RunResult]) -> StoredClaim:
    """Return a claim with what the runs say of it."""
    found = found_means(claim)
    return StoredClaim.of(claim, judge(claim, results, found).verdict, found)


def note_comparison(session: Session, comparison: Comparison) -> None:
    """Have a session keep a comparison, and the facts of the data sets that it names."""
    session.comparison = comparison.to_stored()
    # also of what the baseline alone has
    named = facts_of(case.spec.dataset for case in comparison.cases)
    session.datasets = named | session.datasets


def selected(
    cases: Sequence[Case],
    claims: Sequence[Claim],
    elsewhere: Sequence[Case] = (),
    whole: Sequence[str] = (),
    tests: Mapping[str, str] | None = None,
) -> Selection:
    """Return what collected tests will ask for, as a controller takes it.

    ``elsewhere`` are the cases of the other shards, where this is one, ``whole`` the ids of all;
    ``tests`` has the ids of cases by those of their tests.
    """
    configurations = [*cases, *elsewhere, *(case for claim in claims for case in claim.cases)]
    return Selection(
        datasets=facts_of(case.spec.dataset for case in configurations),
        cases=tuple(map(StoredCase.of, cases)),
        claims=tuple(map(StoredClaim.of, claims)),
        tests=dict(tests or {}),
        elsewhere=tuple(map(StoredCase.of, elsewhere)),
        whole=tuple(whole),
    )


def _on_one_processor(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return all(before.get(name) == now.get(name) for name in PROCESSOR)
