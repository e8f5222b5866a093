"""Baselines: the runs of a session, stored to hold later ones against."""

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from normbench.check.trace_record import GROUND, Trace
from normbench.results import RunResult, Status, by_configuration
from normbench.spec import RunSpec
from normbench.storage.documents import (
    Document,
    StoredDatasets,
    StoredSpec,
    of_known_dataset,
    read_json,
    require_schema,
    validated,
)
from normbench.storage.files import write_atomic
from normbench.storage.session import SessionError, StoredSession, read_session
from normbench.storage.traces import trace_text
from normbench.training.datasets import facts_with_contents, images_per_epoch

SCHEMA = 3  # 1 had no traces, 2 L1 and L2 in place of a regularizer's name


class BaselineError(ValueError):
    """A baseline that is not there, or cannot be read."""


@dataclass(frozen=True)
class BaselineRun:
    """What is kept of a run: the figures after its last epoch, None if it came to a bad end."""

    seed: int
    status: str
    test_accuracy: float | None
    best_test_accuracy: float | None
    train_accuracy: float | None
    test_loss: float | None
    train_seconds: float
    test_seconds: float
    cpu_seconds: float
    device: str
    threads: int
    code: str = ""
    data: str = ""

    @classmethod
    def of(cls, run: RunResult) -> "BaselineRun":
        row = {**vars(run), **run.summary(), "seed": run.spec.seed}
        return cls(**{field.name: row[field.name] for field in dataclasses.fields(cls)})


@dataclass(frozen=True)
class BaselineCase:
    """The runs of one configuration, by rising seed.

    ``spec`` is the configuration: its seed is 0 and says nothing.
    """

    spec: RunSpec
    fingerprint: str
    runs: tuple[BaselineRun, ...]

    @classmethod
    def of(cls, configuration: RunSpec, results: Iterable[RunResult]) -> "BaselineCase":
        """Put the runs together; of different fingerprints, which edits bring, all are named."""
        runs = sorted(results, key=lambda run: run.spec.seed)
        prints = sorted({run.fingerprint for run in runs if run.fingerprint})
        return cls(configuration, "+".join(prints), tuple(map(BaselineRun.of, runs)))

    @property
    def accuracies(self) -> list[float]:
        """The test accuracies of the runs that ended well."""
        return [run.test_accuracy for run in self.runs if run.test_accuracy is not None]

    @property
    def codes(self) -> set[str]:
        """The digests of the code that the runs ran, as far as they are known."""
        return {run.code for run in self.runs if run.code}

    @property
    def contents(self) -> set[str]:
        """The fingerprints of the data that the runs were trained on, as far as they are known."""
        return {run.data for run in self.runs if run.data}

    @property
    def complete(self) -> bool:
        return len(self.accuracies) == len(self.runs)

    @property
    def images_per_second(self) -> float | None:
        """The median over the runs of the rate of training, evaluation left out."""
        return images_per_second(self.spec, self.runs)


def images_per_second(spec: RunSpec, runs: Iterable[BaselineRun | RunResult]) -> float | None:
    """Return the median over the runs of the rate of training; None where none ended well.

    Nor is it known of a recipe that this version does not have.
    """
    try:
        images = sum(images_per_epoch(spec))
    except ValueError:
        return None
    rates = [
        images / run.train_seconds for run in runs if run.status == "ok" and run.train_seconds > 0
    ]
    return statistics.median(rates) if rates else None


@dataclass(frozen=True)
class Baseline:
    """A session's runs with where they were made.

    ``sequential`` says that --bench-seeds auto chose the number of runs, so that tests on them
    have to allow for its looks. ``traces`` are those that nothing was broken of, several of one
    name where they were taken on different ground. Runs with a planted fault, which ``planted``
    names, can be compared with a baseline, and are never stored as one. So can the cases that are
    ``unchanged``, whose rows a session has taken from an earlier one.
    """

    name: str
    created: str
    workers: int
    sequential: bool
    environment: Mapping[str, Any]
    cases: Mapping[RunSpec, BaselineCase]
    traces: tuple[Trace, ...] = ()
    planted: str = ""
    unchanged: Mapping[RunSpec, BaselineCase] = field(default_factory=dict)

    @classmethod
    def of_runs(
        cls,
        name: str,
        created: str,
        workers: int,
        sequential: bool,
        environment: Mapping[str, Any],
        runs: Iterable[RunResult],
        traces: Iterable[Trace] = (),
    ) -> "Baseline":
        """Put the runs together; raises BaselineError where different faults were planted."""
        runs = list(runs)
        planted = sorted({run.planted for run in runs})
        if len(planted) > 1:
            raise BaselineError(
                f"cannot join runs of {name}: they had different faults planted "
                f"({', '.join(fault or 'none' for fault in planted)}), and so ran different code; "
                "expected the runs of one session"
            )
        trained = by_configuration(run for run in runs if not run.replayed)
        replayed = by_configuration(run for run in runs if run.replayed)
        return cls(
            name=name,
            created=created,
            workers=workers,
            sequential=sequential,
            environment=environment,
            cases={spec: BaselineCase.of(spec, found) for spec, found in trained.items()},
            traces=tuple(trace for trace in traces if not trace.broken),
            planted="".join(planted),
            unchanged={
                spec: BaselineCase.of(spec, found)
                for spec, found in replayed.items()
                if spec not in trained
            },
        )

    @classmethod
    def of_session(cls, session: StoredSession, confirming: bool = True) -> "Baseline":
        """Return a stored session's runs; raises SessionError where a row is none.

        To be compared with, they must be those that were planned: seeds that were added as the
        first ones came out low (``confirming``) would make the mean of what is kept too high.
        """
        document = session.document
        session.require_rows()
        for run in session.results.values():
            try:
                of_known_dataset(run.spec)
            except ValueError as error:
                raise SessionError(f"cannot read the session {session.folder}: {error}") from error
        found = cls.of_runs(
            name=session.name,
            created=document.started,
            workers=document.workers,
            sequential=session.sequential,
            environment=document.environment,
            runs=session.results.values() if confirming else session.planned_runs,
            traces=session.traces,
        )
        # also where no row says so
        return dataclasses.replace(found, planted=session.planted)

    @classmethod
    def read(cls, file: Path) -> "Baseline":
        """Read what write has written; raises BaselineError for anything else."""
        try:
            values = read_json(file)
            require_schema(values, file, 1, 2, SCHEMA)
            document = validated(_BaselineDocument, values, file)
            traces = _traces_of(document, file)
        except ValueError as error:
            raise BaselineError(
                f"cannot read the baseline {error}; expected a file that --bench-save-baseline "
                "wrote"
            ) from error
        cases = [
            BaselineCase(case.spec.with_seed(0), case.fingerprint, case.runs)
            for case in document.cases
        ]
        times = Counter(case.spec for case in cases)
        for case in cases:
            seeds = [run.seed for run in case.runs]
            if len(set(seeds)) < len(seeds) or times[case.spec] > 1:
                raise BaselineError(
                    f"cannot read the baseline {file}: {case.spec.title} stands there twice, or a "
                    "seed of it does; expected each run once, as --bench-save-baseline writes it"
                )
        return cls(
            name=document.name,
            created=document.created,
            workers=document.workers,
            sequential=document.sequential,
            environment=document.environment,
            cases={case.spec: case for case in cases},
            traces=traces,
        )

    def write(self, file: Path) -> None:
        """Write every run, a line each, whole or not at all.

        Raises BaselineError if it cannot, and for runs with a planted fault.
        """
        self.require_nothing_planted()
        head = {
            "schema": SCHEMA,
            "name": self.name,
            "created": self.created,
            "workers": self.workers,
            "sequential": self.sequential,
            "environment": self.environment,
            "datasets": self._datasets(),
        }
        cases = ",\n".join(_case_text(case) for case in self.cases.values())
        traces = ",\n".join(f"  {trace_text(trace)}" for trace in self.traces)
        text = (
            f'{json.dumps(head, indent=1)[:-2]},\n "cases": [\n{cases}\n ],\n'
            f' "traces": [\n{traces}\n ]\n}}\n'
        )
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, text)
        except OSError as error:
            raise BaselineError(f"cannot write the baseline {file}: {error}") from error

    def _datasets(self) -> dict[str, Any]:
        """Return the facts of the data sets, by which the file can be read without the data."""
        contents: dict[str, set[str]] = {}
        for case in self.cases.values():
            contents.setdefault(case.spec.dataset, set()).update(case.contents)
        return {
            name: dataclasses.asdict(facts) for name, facts in facts_with_contents(contents).items()
        }

    def require_nothing_planted(self) -> None:
        """Raise BaselineError where a fault was planted: what broken code came to is no measure."""
        if self.planted:
            raise BaselineError(
                f"{self.name} is no baseline: the fault {self.planted!r} was planted while it ran; "
                "expected a session without --bench-plant: run it again without that option"
            )

    def require_runs_of_its_own(self) -> None:
        """Raise BaselineError where each row was taken from an earlier session."""
        if not self.cases and self.unchanged:
            raise BaselineError(
                f"{self.name} is no baseline: all its rows were taken from earlier sessions "
                "(--bench-replay); expected a session that has trained: name the one whose rows "
                "they are"
            )

    @property
    def ended_badly(self) -> list[BaselineCase]:
        """The cases a run of which ended badly: with any, these runs are no baseline."""
        return [case for case in self.cases.values() if not case.complete]


def _traces_of(document: "_BaselineDocument", file: Path) -> tuple[Trace, ...]:
    try:
        return tuple(map(Trace.of_dict, document.traces))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _possible(run: BaselineRun) -> BaselineRun:
    if run.status not in get_args(Status):
        expected = ", ".join(get_args(Status))
        raise ValueError(f"status = {run.status!r}: expected one of {expected}")
    for name in ("test_accuracy", "best_test_accuracy", "train_accuracy"):
        if (value := getattr(run, name)) is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} = {value!r}: expected a fraction, from 0 to 1")
    if run.status == "ok" and run.test_accuracy is None:
        raise ValueError("test_accuracy = None: expected a fraction of a run whose status is ok")
    return run


class _CaseDocument(Document):
    fingerprint: str
    spec: StoredSpec
    runs: tuple[Annotated[BaselineRun, AfterValidator(_possible)], ...] = Field(min_length=1)


class _BaselineDocument(Document):
    """A baseline's file."""

    schema_version: Literal[1, 2, 3] = Field(3, alias="schema")
    name: str
    created: str
    workers: int
    sequential: bool
    environment: dict[str, Any]
    datasets: StoredDatasets = Field(default_factory=dict)
    cases: tuple[_CaseDocument, ...] = Field(min_length=1)
    traces: tuple[dict[str, Any], ...] = ()


def merge_baselines(name: str, parts: Sequence[Baseline]) -> Baseline:
    """Return the runs of all ``parts`` as one baseline, each seed of a configuration once.

    Where machines or numbers of workers differ, the environment names them all, so that no
    session's speed is held against it. Fields that a later version has added to the parts are left
    out, as how to join them is not known. Raises BaselineError for runs that ended badly, that
    had a fault planted, that were made by different builds of torch or by different recipes, and
    where two parts have different runs of one seed, or traces that differ on one ground.
    """
    for part in parts:
        part.require_nothing_planted()
    if bad := [f"{part.name}: {case.spec.title}" for part in parts for case in part.ended_badly]:
        raise BaselineError(
            f"no baseline: runs ended badly of {', '.join(bad[:3])}"
            f"{f' and {len(bad) - 3} more' if len(bad) > 3 else ''}; run them again"
        )
    builds = dict.fromkeys(str(part.environment.get("torch")) for part in parts)
    if len(builds) > 1:
        raise BaselineError(
            f"cannot join runs of different builds of torch ({', '.join(builds)}); "
            "make a baseline of each"
        )
    cases: dict[RunSpec, BaselineCase] = {}
    for part in parts:
        for spec, case in part.cases.items():
            cases[spec] = _joined_case(cases[spec], case) if spec in cases else case
    keys = dict.fromkeys(key for part in parts for key in part.environment)
    workers = {part.workers for part in parts}
    environment = {key: all_of([part.environment.get(key) for part in parts]) for key in keys}
    return Baseline(
        name=name,
        created=max(part.created for part in parts),
        workers=workers.pop() if len(workers) == 1 else 0,
        sequential=any(part.sequential for part in parts),
        environment=environment,
        cases=cases,
        traces=_joined_traces(parts),
    )


def _joined_traces(parts: Sequence[Baseline]) -> tuple[Trace, ...]:
    """Return the traces of all parts, those that are equal once."""
    found: dict[tuple[object, ...], Trace] = {}
    for part in parts:
        for trace in part.traces:
            key = (trace.name, trace.spec, *(trace.ground[name] for name in GROUND))
            known = found.setdefault(key, trace)
            if (known.losses, known.digests) != (trace.losses, trace.digests):
                raise BaselineError(
                    f"cannot join the traces {trace.name}: they differ, though the machine, torch, "
                    "threads and code are the same; expected them equal to the bit: find out why "
                    "training is not deterministic there, and make the baseline anew"
                )
    return tuple(found.values())


def all_of(values: Sequence[Any]) -> Any:
    """Return the value that all have, or all values' texts."""
    texts = dict.fromkeys(map(str, values))
    return values[0] if len(texts) == 1 else " + ".join(texts)


def _joined_case(first: BaselineCase, second: BaselineCase) -> BaselineCase:
    what = f"{first.spec.dataset} {first.spec.label}"
    if first.fingerprint != second.fingerprint:
        raise BaselineError(
            f"cannot join the runs of {what}: they were trained with different networks or recipes"
        )
    if len(contents := first.contents | second.contents) > 1:
        raise BaselineError(
            f"cannot join the runs of {what}: they were trained on different data of that name "
            f"(fingerprints {', '.join(sorted(contents))}); expected the same images and labels"
        )
    runs = {run.seed: run for run in first.runs}
    for run in second.runs:
        known = runs.setdefault(run.seed, run)
        if (known.test_accuracy, known.test_loss) != (run.test_accuracy, run.test_loss):
            raise BaselineError(
                f"cannot join the runs of {what}: there are two different ones of seed {run.seed}; "
                "join sessions of other seeds, such as --bench-seeds 5:10"
            )
    return dataclasses.replace(first, runs=tuple(runs[seed] for seed in sorted(runs)))


def _case_text(case: BaselineCase) -> str:
    spec = {key: value for key, value in case.spec.to_dict().items() if key != "seed"}
    runs = ",\n".join(f"    {json.dumps(dataclasses.asdict(run))}" for run in case.runs)
    head = f'  {{"fingerprint": {json.dumps(case.fingerprint)},\n   "spec": {json.dumps(spec)}'
    return f'{head},\n   "runs": [\n{runs}\n   ]}}'


# The baselines that come with the package; in a checkout, a link to results/reference.
PACKAGED = Path(__file__).parents[1] / "reference"


def new_baseline(name: str, folder: Path, overwrite: str | None) -> Path:
    """Return the file of a baseline that is to be written to ``folder``.

    ``overwrite`` is the option that would let it replace another one, None where it may. Raises
    BaselineError for a name that is taken, in ``folder`` or by the package.
    """
    file = folder / f"{name}.json"
    if folder.resolve() != PACKAGED.resolve() and (PACKAGED / file.name).is_file():
        raise BaselineError(
            f"{name!r} is a baseline of the package, which {file} would hide: choose another name"
        )
    if overwrite is not None and file.exists():
        raise BaselineError(
            f"there is a baseline {name!r} already, {file}: choose another name, or give "
            f"{overwrite} to replace it"
        )
    return file


def find_baseline(text: str, folder: Path, confirming: bool = False) -> Baseline:
    """Read the baseline that a name, a file or a session's folder stands for.

    A name is looked for in ``folder``, then among the baselines of the package. ``confirming`` says
    that it is what is compared, and not what is compared with: a session then has the seeds that
    confirmed a suspicion, as for Baseline.of_session, and may have had a fault planted. Raises
    BaselineError for what leads nowhere, and for what is there but cannot be read.
    """
    path = Path(text)
    if text and path.is_dir():
        try:
            session = read_session(path)
            if not session.results:
                raise SessionError(f"cannot read the session {path}: it has no runs")
            found = Baseline.of_session(session, confirming)
            if not confirming:
                found.require_nothing_planted()
                found.require_runs_of_its_own()
            return found
        except SessionError as error:
            raise BaselineError(str(error)) from error
    for file in (path, folder / f"{text}.json", PACKAGED / f"{text}.json"):
        if file.is_file():
            return Baseline.read(file)
    known = sorted({file.stem for place in (folder, PACKAGED) for file in place.glob("*.json")})
    raise BaselineError(
        f"there is no baseline {text!r}: expected a file, a session's folder, or a name from "
        f"{folder} or the package ({', '.join(known)}); --bench-save-baseline NAME writes one"
    )
