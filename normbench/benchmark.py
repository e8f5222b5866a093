"""The benchmark as one pytest process sees it: options, cases, session, store and device."""

import dataclasses
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from normbench.cases import Case, load_cases
from normbench.data import DatasetDamaged, DatasetUnavailable, ensure_dataset, load_dataset
from normbench.options import Options
from normbench.results import RunResult
from normbench.scheduling import DeviceSlots, available_cores, parse_device, threads_for_each
from normbench.session import Session, SessionError, environment, new_session_name
from normbench.spec import RunSpec
from normbench.store import RunStore
from normbench.tables import case_tables, write_tables
from normbench.trainer import train


class UnusableInput(ValueError):
    """Something that the user gave and that nothing can be trained with."""


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
        self.session = Session(
            options.results,
            worker_input["session"] if worker_input else new_session_name(),
            options=options.to_dict(),
        )
        self.store = RunStore(self.session.folder, self.worker)
        self.slots = DeviceSlots(parse_device(options.device, torch.cuda.device_count()))
        self.device = torch.device(
            worker_input["device"] if worker_input else self.slots.devices[0]
        )
        self.cases = [case for file in self._files() for case in load_cases(file, options.grid)]
        if worker_input and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(worker_input["threads"])
        self._outcomes: dict[str, str] = {}
        self._prepared = False

    @classmethod
    def of(cls, config: pytest.Config) -> "Benchmark":
        """Return the benchmark of a configuration; raises pytest.UsageError for bad input."""
        worker_input = getattr(config, "workerinput", {}).get("normbench")
        try:
            return cls(Options.of(config), config.rootpath, worker_input)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error

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

    def grids(self, *names: str) -> list[Case]:
        """Return the cases of the named grids; without a name, those of --bench-cases."""
        chosen = names or {file.stem for file in self.options.cases}
        return [case for case in self.cases if case.grid in chosen]

    @cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.id: case for case in self.cases}

    def cases_of_nodes(self, node_ids: Iterable[str]) -> list[Case]:
        """Return the cases that node ids, such as ``test_mnist[mnist-batch-none-b64]``, name.

        A node id that names a grid stands for all of its cases.
        """
        named = {node.partition("[")[2].removesuffix("]") for node in node_ids}
        return [case for case in self.cases if named & {case.id, case.grid}]

    def prepare(self, cases: Iterable[Case]) -> list[str]:
        """Make the session's folder and check the data sets, before the first of ``cases`` trains.

        Returns what the user should know. Raises UnusableInput for a folder that cannot be
        written to and for damaged data.
        """
        datasets = sorted({case.spec.dataset for case in cases})
        if self._prepared or not datasets:
            return []
        self._prepared = True
        notes: list[str] = []
        self.session.environment = environment(self.root)
        try:
            self.session.open()
            for name in datasets:
                try:
                    ensure_dataset(name, self.options.data)
                except DatasetUnavailable as unavailable:
                    notes.append(f"skipping {name}: {unavailable}")
        except (SessionError, DatasetDamaged) as error:
            raise UnusableInput(str(error)) from error
        return notes

    def worker_input(self, worker: str, workers: int) -> dict[str, Any]:
        """Return what a new worker is told: builtin types only, as xdist sends them."""
        self.session.workers = workers
        return {
            "session": self.session.name,
            "worker": worker,
            "device": self.slots.assign(worker),
            "threads": threads_for_each(workers, available_cores()),
        }

    def run(self, spec: RunSpec, case: str = "") -> RunResult:
        """Return the session's run of ``spec``, training it if nobody has.

        Raises DatasetUnavailable, DatasetDamaged, and what the training raises.
        """
        data = load_dataset(spec.dataset, self.options.data, self.device)

        def train_here(spec: RunSpec) -> RunResult:
            return dataclasses.replace(train(spec, data, self.device), worker=self.worker)

        return self.store.get_or_train(spec, train_here, case)

    def record_outcome(self, case: str, outcome: str) -> None:
        """Note a test's outcome for its case; of several tests of one case, a failed one counts."""
        if self._outcomes.get(case) != "failed":
            self._outcomes[case] = outcome

    def verdicts(self) -> dict[str, str]:
        """Return each case's verdict: passed, failed, skipped, or how its run came to a bad end."""
        results = self.store.results()

        def verdict(case: str, outcome: str) -> str:
            runs = [results[s.key] for s in self._by_id[case].specs if s.key in results]
            ends = [run.status for run in runs if run.status != "ok"]
            return ends[0] if outcome == "failed" and ends else outcome

        return {case: verdict(case, outcome) for case, outcome in self._outcomes.items()}

    def finish(self, status: str) -> dict[str, pd.DataFrame]:
        """Write the session's verdicts and tables, if anything was run; return the tables."""
        if not self._outcomes:
            return {}
        self.session.verdicts = self.verdicts()
        self.session.write(status)
        tables = case_tables(self.cases, self.store.results(), self.session.verdicts)
        write_tables(self.session.folder / "tables", tables, self.session)
        self.store.close()
        return tables
