"""Small sessions in a folder, stored and read as real ones are, and the golden ones.

The golden files are of one project: a grid of batch, layer, group:4 and two norms of its own on
digits, two epochs each, a claim that compares batch with layer over two seeds, and one that counts
means. The baseline, of three seeds, was made while the project's own norms still trained; it has
``instance``, which no session has, lacks ``layer``, and knows ``group:4`` by another fingerprint.
session-1 and baseline-1.json were written by normbench 0.1, session-2 by the first one of schema 2;
baseline-2.json is baseline-1.json with TRACE, by the first one that had traces.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from normbench.analysis.claims import judge
from normbench.analysis.comparison import Comparison, Reference
from normbench.analysis.spread import Spread
from normbench.analysis.verdicts import with_verdicts
from normbench.cases.case import Case, Claim
from normbench.check.trace_record import Trace
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline
from normbench.storage.documents import Status, StoredCase, StoredClaim
from normbench.storage.session import Session, StoredSession, read_session

GOLDEN = Path(__file__).parent / "golden"

NAME = "20260101-000000-1"
STARTED = 1767225600.0  # 2026-01-01T00:00:00+00:00
ENVIRONMENT: Mapping[str, Any] = {
    "processor": "Some CPU",
    "cores": 2,
    "gpus": [],
    "python": "3.11.7",
    "torch": "2.15.0",
    "torchvision": "0.29.2",
    "commit": "abc",
}

# Of two steps and an evaluation.
TRACE = Trace(
    name="digits-batch-none",
    spec=RunSpec("digits", "digits", "batch", recipe="digits", batch_size=8, train_images=16),
    ground={
        "torch": "2.15.0",
        "processor": "Some CPU",
        "threads": "1",
        "device": "cpu",
        "code": "abc",
        "fingerprint": "def",
    },
    losses=(2.3, 2.2),
    digests={
        "logits": "0123456789abcdef01234567",
        "parameter classifier.weight": "89abcdef01234567",
    },
    norms={"logits": (1.0, 1.5, 7.0), "parameter classifier.weight": (2.0, 2.5)},
    share=0.02,
    where="step 1, logits",
    seconds=0.5,
)


def on_ground(**ground: str) -> Trace:
    """Return TRACE as if it had been taken elsewhere."""
    return dataclasses.replace(TRACE, ground={**TRACE.ground, **ground})


def finished(spec: RunSpec, *accuracies: float) -> RunResult:
    """Return a run that ended well, with these test accuracies after its epochs."""
    epochs = tuple(Epoch(n, 0.1, 0.2, 0.97, 0.3, a, 2.0, 0.5) for n, a in enumerate(accuracies, 1))
    return RunResult(
        spec, "ok", parameters=120, epochs=epochs, cpu_seconds=4.0, fingerprint="of the recipe"
    )


def baseline_of(runs: Iterable[RunResult]) -> Baseline:
    return Baseline.of_runs("runs", "2026-01-01", 2, False, {}, runs)


def judged(
    cases: Sequence[Case],
    runs: Sequence[RunResult],
    outcomes: Mapping[str, str] | None = None,
    before: Iterable[RunResult] | None = None,
    skipped: Mapping[str, str] | None = None,
) -> list[StoredCase]:
    """Return the cases with the verdicts that a session gives them.

    All have passed, unless ``outcomes`` of their tests are given; ``before`` are the runs of a
    baseline, and ``skipped`` says why cases were.
    """
    return with_verdicts(
        cases,
        {case.id: "passed" for case in cases} if outcomes is None else outcomes,
        {run.spec.key: run for run in runs},
        Spread(baseline_of(runs)),
        None if before is None else Reference([baseline_of(before)]),
        skipped=skipped,
    )


def store_session(
    results: Path,
    cases: Sequence[StoredCase] = (),
    runs: Sequence[RunResult] = (),
    *,
    name: str = NAME,
    claims: Sequence[Claim] = (),
    comparison: Comparison | None = None,
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    status: Status = "finished",
    planted: str = "",
) -> StoredSession:
    """Store a session of two workers below ``results``, and read it again.

    ``planted`` is the fault that it and all of its runs had planted.
    """
    if planted:
        runs = [dataclasses.replace(run, planted=planted) for run in runs]
    by_key = {run.spec.key: run for run in runs}
    session = Session(
        results,
        name,
        workers=2,
        planted=planted,
        options={"seeds": 3, **(options or {})},
        environment={**ENVIRONMENT, **(environment or {})},
        cases=cases,
        claims=[StoredClaim.of(claim, judge(claim, by_key, {}).verdict) for claim in claims],
        comparison=None if comparison is None else comparison.to_stored(),
        started=STARTED,
    )
    session.folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{json.dumps(run.to_row())}\n" for run in runs)
    (session.folder / "runs.jsonl").write_text(rows, encoding="utf-8")
    session.write(status)
    return read_session(session.folder)


def golden_copy(name: str, results: Path) -> Path:
    """Copy a golden session to where a session of ``results`` lies; return its folder."""
    folder = results / "runs" / name
    shutil.copytree(GOLDEN / name, folder)
    return folder


def edit_document(folder: Path, /, **changes: Any) -> None:
    """Change fields of a stored session.json."""
    file = folder / "session.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(document | changes), encoding="utf-8")


def edit_rows(folder: Path, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Pass each stored row to ``edit``, which returns what stands in its place, or None."""
    file = folder / "runs.jsonl"
    rows = [edit(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows if row), encoding="utf-8")
