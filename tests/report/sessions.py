"""Sessions to draw reports of: norms with and without L2, at two batch sizes, of two seeds each."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np

from normbench.analysis.comparison import compare
from normbench.cases.case import Case, Claim, Contrast, Published
from normbench.report.page import needed_pictures, write_report
from normbench.results import ClaimVerdict, Epoch, LayerActivations, Mistake, RunResult
from normbench.spec import RunSpec
from normbench.storage.pictures import StoredPictures, store_pictures
from normbench.storage.session import StoredSession, read_session

from ..analysis.simulation import baseline_of
from ..storage.stored import judged, store_session

SPEC = RunSpec("digits", "digits", "batch", epochs=3, recipe="digits")
HOSTILE = "pkg:</script><img src=x onerror=alert(1)>"


def run(spec: RunSpec, accuracy: float) -> RunResult:
    accuracies = (accuracy - 0.02, accuracy - 0.01, accuracy)
    epochs = tuple(
        Epoch(n, 0.1, 0.3 / n, a - 0.001, 0.2 / n, a, 2.0, 0.5) for n, a in enumerate(accuracies, 1)
    )
    # nine of ten right in each class, the tenth taken for the next class
    confusion = tuple(
        tuple(9 * (p == t) + (p == (t + 1) % 10) for p in range(10)) for t in range(10)
    )
    # images 1 and 2 are wrong with every norm, eight others with this one alone
    own = 10 + 8 * (sum(map(ord, spec.norm)) % 50)
    wrong = (1, 2, *range(own, own + 8))
    mistakes = tuple(Mistake(n, 3, 5, 1 - n / 1000) for n in wrong[:4])
    activations = (LayerActivations("block1.norm", *([(0.1, 0.2, 0.3)] * 4)),)
    weights = (30, *(10,) * 28, 5) if spec.strengths else (0, *(10,) * 28, 35)
    return RunResult(
        spec,
        "ok",
        epochs=epochs,
        confusion=confusion,
        mistakes=mistakes,
        wrong=wrong,
        activations=activations,
        weights=weights,
        cpu_seconds=4.0,
    )


def stored(
    results: Path,
    norms: tuple[str, ...],
    sizes: tuple[int, ...] = (32, 64),
    name: str = "s",
    spec: RunSpec = SPEC,
    pictures: bool = True,
) -> StoredSession:
    """Store a session of a case a norm, regularizer and batch size, of two seeds each."""
    cases, runs = [], []
    for norm, regularizer, size in itertools.product(norms, ("none", "l2:0.001"), sizes):
        one = dataclasses.replace(spec, norm=norm, regularizer=regularizer, batch_size=size)
        published = Published(0.98, 0.001, "grid") if norm == "batch" else None
        cases.append(Case("digits", "standard", one, 0.9, published, seeds=2))
        rank = min(len(cases), 250) / 1e4
        runs += [run(one, 0.97 + rank), run(one.with_seed(1), 0.972 + rank)]
    outcomes = {c.id: "failed" if c.spec.norm == "none" else "passed" for c in cases}
    before = baseline_of({SPEC: [0.99, 0.991, 0.992]})
    # of the first norm, with l2 and without, at the first batch size
    contrast = Contrast(cases[len(sizes)], cases[0], low=0.02)
    expected = (ClaimVerdict.HOLDS,)
    claim = Claim("c", "A is <b>far</b> better.", "hearsay", "full", expected, 2, (contrast,))
    session = store_session(
        results,
        judged(cases, runs, outcomes),
        runs,
        name=name,
        claims=[claim],
        comparison=compare(before, baseline_of({SPEC: [0.95] * 5})),
        options={"data": str(results)},
        environment=dict.fromkeys(("python", "torch", "torchvision", "commit"), "1"),
    )
    if pictures:
        keep_pictures(session)
    return session


def keep_pictures(session: StoredSession) -> None:
    """Store the images that the session's report needs: each is as bright as its index."""
    for dataset, indices in needed_pictures(session).items():
        images = np.array([np.full((8, 8, 1), index % 256) for index in sorted(indices)])
        labels = tuple(index % 10 for index in sorted(indices))
        kept = StoredPictures(images.astype(np.uint8), tuple(sorted(indices)), labels)
        store_pictures(session.folder, dataset, kept)


def write(
    results: Path, norms: tuple[str, ...], sizes: tuple[int, ...] = (32, 64), name: str = "s"
) -> Path:
    """Write the report of such a session."""
    return write_report(stored(results, norms, sizes, name))


def draw_again(report: Path) -> Path:
    """Draw a report from what its folder holds by now."""
    return write_report(read_session(report.parent))
