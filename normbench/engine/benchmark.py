"""The benchmark as one pytest process sees it: options, cases, session, store and device."""

import dataclasses
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from normbench.analysis.claims import ClaimResult, judge
from normbench.analysis.comparison import Comparison, compare, undecided
from normbench.analysis.spread import Spread
from normbench.analysis.statistics import Variance
from normbench.analysis.thresholds import INTERIM_RUNS
from normbench.cases.case import Case
from normbench.cases.claims import CLAIMS, Claim, is_claims_file, load_claims
from normbench.cases.grids import load_cases
from normbench.engine.devices import DeviceSlots, parse_device, threads_per_worker, tune_malloc
from normbench.engine.options import Options
from normbench.report.page import write_figures, write_report
from normbench.report.summary import session_summary, write_summary
from normbench.report.tables import (
    COMPARISON,
    case_tables,
    write_claims,
    write_comparison,
    write_tables,
)
from normbench.results import RunResult, Runs
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline, BaselineError, find_baseline
from normbench.storage.environment import available_cores, environment
from normbench.storage.runs import RunStore
from normbench.storage.session import Session, SessionError, new_session_name
from normbench.training.data import ensure_dataset, load_dataset
from normbench.training.datasets import DatasetDamaged, DatasetUnavailable
from normbench.training.trainer import train

# Figures take a second each: short sessions leave them to ``python -m normbench report``.
FIGURES_AFTER_SECONDS = 300.0


class UnusableInput(ValueError):
    """Something that the user gave and that nothing can be trained with."""


def grid_id(grid: str) -> str:
    """Return the id of a test about a whole grid; the grid's bare name may be any test's."""
    return f"{grid}-grid"


def _parameters_of(node_ids: Iterable[str]) -> set[str]:
    return {node.partition("[")[2].removesuffix("]") for node in node_ids}


@dataclass(frozen=True)
class SessionOutcome:
    """What a session comes to: a table a grid, the comparison and the claims asked for, a note."""

    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    comparison: Comparison | None = None
    claims: Sequence[ClaimResult] = ()
    note: str = ""


class Benchmark:
    """What the plugin delegates to, in the controller, in each worker, or in the only process.

    ``worker_input`` is what the controller gave this worker, None in the controller itself.
    Raises UnusableInput, or the ValueError of what is wrong, before anything trains.
    """

    def __init__(
        self, options: Options, root: Path, worker_input: dict[str, Any] | None = None
    ) -> None:
        self.options = options
        self.root = root
        self.worker = worker_input["worker"] if worker_input else "main"
        self.session = self._session(worker_input)
        self.slots = DeviceSlots(parse_device(options.device, torch.cuda.device_count()))
        self.device = torch.device(
            worker_input["device"] if worker_input else self.slots.devices[0]
        )
        self.store = RunStore(self.session.folder, self.worker, str(self.device))
        self.claims: list[Claim] = []
        self.cases: list[Case] = []
        self._load()
        if worker_input and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(worker_input["threads"])
        tune_malloc()
        self.baseline = self._find_baseline()
        self.outcomes: dict[str, str] = {}
        self.judged: set[str] = set()
        self._prepared = False

    def _session(self, worker_input: dict[str, Any] | None) -> Session:
        results, options = self.options.results, self.options.to_dict()
        if worker_input is None and self.options.resume:
            try:
                return Session.interrupted(results, options)
            except SessionError as error:
                raise UnusableInput(f"--bench-resume: {error}") from error
        name = worker_input["session"] if worker_input else new_session_name()
        return Session(results, name, options=options)

    def _load(self) -> None:
        """Read the grids, then the claims, which take their configurations from the grids."""
        files = self._files()
        claims = [file for file in files if is_claims_file(file)]
        grids = {file.stem: file for file in files if file not in claims}
        if reserved := next((g for g in grids if g == COMPARISON or g.startswith(CLAIMS)), None):
            raise UnusableInput(
                f"a grid cannot be called {reserved!r}, as tables of another kind are: "
                "rename the cases file"
            )
        for file in grids.values():
            self.cases += load_cases(file, self.options.grid)
        # a claim compares the norms that it names, which --bench-norm-only leaves out
        for file in () if self.options.grid.norms_only else claims:
            self.claims += load_claims(file, grids, self.options.grid)
        self.cases += self.claimed_cases

    def _files(self) -> list[Path]:
        files = [*sorted((self.root / "bench" / "cases").glob("*.toml")), *self.options.cases]
        stems = [file.stem for file in files]
        for file in self.options.cases:
            if stems.count(file.stem) > 1:
                raise UnusableInput(
                    f"--bench-cases {file}: there is a grid called {file.stem!r} already; "
                    "rename the file"
                )
        return files

    @property
    def claimed_cases(self) -> list[Case]:
        """The configurations that the claims need runs of, each once."""
        return list({case.id: case for claim in self.claims for case in claim.cases}.values())

    def _find_baseline(self) -> Baseline | None:
        if self.options.baseline is None:
            return None
        return find_baseline(self.options.baseline, self.options.reference)

    def grids(self, *names: str) -> list[Case]:
        """Return the cases of the named grids; without a name, those of --bench-cases."""
        chosen = names or {file.stem for file in self.options.cases}
        return [case for case in self.cases if case.grid in chosen]

    @cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.id: case for case in self.cases}

    def claims_of_nodes(self, node_ids: Collection[str]) -> list[Claim]:
        """Return the claims that node ids, such as ``test_claim[batch-is-best]``, name."""
        named = _parameters_of(node_ids)
        return [claim for claim in self.claims if claim.name in named]

    def cases_of_nodes(self, node_ids: Collection[str]) -> list[Case]:
        """Return the cases that node ids, such as ``test_mnist[mnist-batch-none-b64]``, name.

        A node id that names a grid, as grid_id does, or a claim stands for all of its cases.
        """
        named = _parameters_of(node_ids)
        named |= {case.id for claim in self.claims_of_nodes(node_ids) for case in claim.cases}
        return [case for case in self.cases if named & {case.id, grid_id(case.grid)}]

    def prepare(self, cases: Iterable[Case], claims: Collection[Claim] = ()) -> list[str]:
        """Make the session's folder and check the data sets, before the first of ``cases`` trains.

        Without a case or a claim there is nothing to prepare.

        Returns what the user should know. Raises UnusableInput for a folder that cannot be
        written to and for damaged data.
        """
        cases = list(cases)
        datasets = sorted({case.spec.dataset for case in cases})
        if self._prepared or not (datasets or claims):
            return []
        self._prepared = True
        if self.options.grid.sequential:
            self._require_known_spread(cases)
        if self.options.save_baseline is not None:
            self._require_writable(self.options.reference)
        notes: list[str] = []
        self.session.environment = environment(self.root)
        try:
            self.session.open()
            if self.session.resumed:
                self.store.reopen()
            for name in datasets:
                try:
                    ensure_dataset(name, self.options.data)
                except DatasetUnavailable as unavailable:
                    notes.append(f"skipping {name}: {unavailable}")
        except (SessionError, DatasetDamaged) as error:
            raise UnusableInput(str(error)) from error
        return notes

    def _require_known_spread(self, cases: Iterable[Case]) -> None:
        unknown = next(
            (
                c
                for c in cases
                if self.baseline and not Spread(self.baseline).variance(c.spec).known
            ),
            None,
        )
        if unknown is not None:
            raise UnusableInput(
                f"--bench-seeds auto: the baseline {self.options.baseline} has no two runs of one "
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

    def worker_input(self, worker: str, workers: int) -> dict[str, Any]:
        """Return what a new worker is told: builtin types only, as xdist sends them."""
        self.session.workers = workers
        return {
            "session": self.session.name,
            "worker": worker,
            "device": self.slots.assign(worker),
            "threads": threads_per_worker(workers, available_cores()),
        }

    def run(self, spec: RunSpec, case: str = "") -> RunResult:
        """Return the session's run of ``spec``, training it if nobody has.

        Raises DatasetUnavailable, DatasetDamaged, and what the training raises.
        """
        data = load_dataset(spec.dataset, self.options.data, self.device)

        def train_here(spec: RunSpec) -> RunResult:
            checkpoint = self.store.checkpoint(spec)
            result = train(spec, data, self.device, self.store.note_epoch, checkpoint)
            return dataclasses.replace(result, worker=self.worker)

        return self.store.get_or_train(spec, train_here, case)

    def run_case(self, case: Case) -> Runs:
        """Return the case's runs: those of all its seeds, or as many as decide it.

        Raises what run raises.
        """
        if not self.options.grid.sequential or self.baseline is None:
            return Runs.of(self.run(spec, case.id) for spec in case.specs)
        runs: list[RunResult] = []
        for look in INTERIM_RUNS:
            runs += [self.run(spec, case.id) for spec in case.specs[len(runs) : look]]
            ended_well = all(run.status == "ok" for run in runs)
            if not (ended_well and self._undecided(case, runs, self.baseline)):
                break
        return Runs.of(runs)

    def _undecided(self, case: Case, runs: list[RunResult], baseline: Baseline) -> bool:
        return undecided(
            runs,
            case.target,
            baseline,
            Spread(baseline),
            cases=len(self.cases),
            minimum_effect=self.options.minimum_effect,
        )

    def judge(self, claim: Claim) -> ClaimResult:
        """Return what the runs say of the claim, training those that nobody has.

        Raises what run raises.
        """
        for case in claim.cases:
            for spec in case.specs[: claim.seeds]:
                self.run(spec, case.id)
        return judge(claim, self.store.results())

    def record_outcome(self, case: str, outcome: str) -> None:
        """Note a test's outcome for its case; of several tests of one case, a failed one counts."""
        if self.outcomes.get(case) != "failed":
            self.outcomes[case] = outcome

    def verdicts(self) -> dict[str, str]:
        """Return each case's verdict: passed, failed, skipped, or how its run came to a bad end."""
        results = self.store.results()

        def verdict(case: str, outcome: str) -> str:
            runs = [results[s.key] for s in self._by_id[case].specs if s.key in results]
            ends = [run.status for run in runs if run.status != "ok"]
            return ends[0] if outcome == "failed" and ends else outcome

        return {case: verdict(case, outcome) for case, outcome in self.outcomes.items()}

    def finish(self, status: str) -> SessionOutcome:
        """Write what the session has found, if anything was run, and return it."""
        if not (self.outcomes or self.judged):
            self.session.close()
            return SessionOutcome()
        results = self.store.results()
        claims = [judge(c, results) for c in self.claims if c.name in self.judged]
        self.session.verdicts = self.verdicts()
        self.session.claims = {finding.claim.name: finding.verdict for finding in claims}
        now = self._as_baseline(results.values())
        comparison = None
        if self.baseline is not None:
            comparison = compare(self.baseline, now, self.options.minimum_effect)
            self.session.comparison = comparison.to_dict()
        self.session.write(status)
        tables = case_tables(self.cases, results, self.session.verdicts, self._variances(now))
        folder = self.session.folder / "tables"
        write_tables(folder, tables, self.session)
        if comparison is not None:
            write_comparison(folder, comparison, self.session)
        if claims:
            write_claims(folder, claims, self.session)
        summary = session_summary(tables, comparison, claims, self.session)
        write_summary(self.session.folder, summary)
        write_report(self.session.folder)
        if self.session.seconds > FIGURES_AFTER_SECONDS:
            write_figures(self.session.folder)
        self.store.close(finished=status == "finished")
        self.session.close()
        return SessionOutcome(tables, comparison, claims, self._save_baseline(now, status))

    def _as_baseline(self, runs: Iterable[RunResult]) -> Baseline:
        return Baseline.of_runs(
            self.session.name,
            created=self.session.started_at,
            workers=self.session.workers,
            sequential=self.options.grid.sequential,
            environment=self.session.environment,
            runs=runs,
        )

    def _variances(self, now: Baseline) -> Mapping[RunSpec, Variance]:
        """Return each configuration's variance: the session's own, else the baseline's."""

        mine, theirs = Spread(now), Spread(self.baseline) if self.baseline else None

        def variance(spec: RunSpec) -> Variance:
            own = mine.variance(spec)
            return theirs.variance(spec) if theirs and not own.known else own

        return {spec: variance(spec) for spec in now.cases}

    def _save_baseline(self, now: Baseline, status: str) -> str:
        """Write the baseline that was asked for; return what became of it."""
        name = self.options.save_baseline
        if name is None:
            return ""
        bad = now.ended_badly
        if status != "finished" or bad:
            why = f"a run of {len(bad)} of its cases ended badly" if bad else "it was interrupted"
            return f"the session is no baseline, as {why}: {name} was not written"
        file = self.options.reference / f"{name}.json"
        try:
            dataclasses.replace(now, name=name).write(file)
        except BaselineError as error:
            return f"{error}; the runs are in {self.session.folder}"
        return f"baseline {name} written to {file}"
