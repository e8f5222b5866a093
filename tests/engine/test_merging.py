"""Sessions made into one: verdicts as if it had been one, and what are no parts of one refused."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normbench.analysis.comparison import Reference
from normbench.cases.case import Case, Claim, Contrast
from normbench.engine.merging import merge
from normbench.engine.shards import dealt
from normbench.results import JUDGED, RunResult
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline
from normbench.storage.pictures import StoredPictures, read_pictures, store_pictures
from normbench.storage.runs import RunStore
from normbench.storage.session import SessionError, StoredSession, read_session
from normbench.storage.traces import read_traces, store_trace
from normbench.training.datasets import find_dataset

from ..storage.stored import TRACE, edit_rows, finished, judged, on_ground, store_session

CASES = [
    Case(
        "tiny",
        "smoke",
        RunSpec("digits", "digits", norm, regularizer=l1, batch_size=size, epochs=1),
        target=0.9,
        seeds=3,
    )
    for norm, l1, size in product(("none", "batch", "layer"), ("none", "l1:0.001"), (32, 64))
]
CONTRAST = Contrast(CASES[4], CASES[0], low=0.0)
CLAIM = Claim("better", "Batch is better.", "hearsay", "smoke", JUDGED, 3, (CONTRAST,))


def runs_of(cases: Sequence[Case], worse: Sequence[Case] = ()) -> list[RunResult]:
    """Return runs near 95 %, that of each case and seed a little elsewhere, the worse at 91 %."""
    return [
        finished(spec, (0.91 if case in worse else 0.95) + 0.0007 * ((3 * n + spec.seed) % 5))
        for n, case in enumerate(CASES)
        if case in cases
        for spec in case.specs
    ]


def baseline() -> Baseline:
    runs = [
        finished(c.spec.with_seed(seed), 0.95 + 0.0005 * seed) for c in CASES for seed in range(6)
    ]
    return Baseline.of_runs("before", "2026-01-01", 2, False, {"processor": "Some CPU"}, runs)


def part(
    results: Path,
    cases: Sequence[Case],
    name: str,
    options: Mapping[str, Any] | None = None,
    failed: Sequence[Case] = (),
    **more: Any,
) -> StoredSession:
    runs = runs_of(cases, failed)
    outcomes = {case.id: "failed" if case in failed else "passed" for case in cases}
    return store_session(
        results / name, judged(cases, runs, outcomes), runs, name=name, options=options, **more
    )


def shards(results: Path, count: int, failed: Sequence[Case] = ()) -> list[StoredSession]:
    """Deal the cases to sessions of their own."""
    parts = dealt({case.id: float(case.spec.batch_size) for case in CASES}, count)
    return [
        part(
            results,
            [case for case in CASES if case.id in names],
            f"20260101-00000{number}-1",
            {"shard": f"{number}/{count}"},
            failed,
        )
        for number, names in enumerate(parts, start=1)
    ]


@pytest.mark.parametrize("count", [2, 4, 8])
def test_shards_come_to_the_verdicts_of_the_whole(tmp_path: Path, count: int) -> None:
    failed = [CASES[3]]
    (tmp_path / "reference").mkdir()
    baseline().write(tmp_path / "reference" / "before.json")
    whole = merge([part(tmp_path, CASES, "20260101-000000-1", {}, failed)], tmp_path, ["before"])
    merged = merge(shards(tmp_path, count, failed), tmp_path, ["before"])
    assert merged.notes == ()
    by_id = {c.case.id: c for c in merged.session.document.cases}
    assert [by_id[c.case.id] for c in whole.session.document.cases] == list(
        whole.session.document.cases
    )
    ours, theirs = (each.session.document.comparison for each in (merged, whole))
    assert ours is not None
    assert theirs is not None
    assert {c.spec: c for c in ours.cases} == {c.spec: c for c in theirs.cases}
    assert len(merged.session.results) == 3 * len(CASES)
    # and they are those of a session's own end
    direct = Reference([baseline()]).compare(Baseline.of_session(whole.session))
    assert {c.spec: c.outcome for c in ours.cases} == {c.spec: c.outcome for c in direct.cases}


def test_a_merged_session_tells_where_it_comes_from_and_is_drawn(tmp_path: Path) -> None:
    parts = shards(tmp_path, 2)
    session = merge(parts, tmp_path).session
    assert session.folder.parent == (tmp_path / "runs").resolve()
    assert session.document.options["merged"] == [each.name for each in parts]
    assert session.document.options["shard"] is None
    assert session.document.workers == 4
    # both began at once
    longest = max(each.document.seconds for each in parts)
    assert session.document.seconds == pytest.approx(longest, abs=60)
    for name in ("tables/tiny.csv", "summary.md", "report.html"):
        assert (session.folder / name).is_file()
    assert (tmp_path / "latest").resolve() == session.folder


def test_cases_are_in_the_order_of_the_grids_where_shards_tell_it(tmp_path: Path) -> None:
    order = [case.id for case in CASES]
    parts = [
        StoredSession(each.folder, each.document.model_copy(update={"whole": tuple(order)}))
        for each in shards(tmp_path, 3)
    ]
    assert [c.case.id for c in merge(parts, tmp_path).session.document.cases] == order


def test_claims_are_judged_by_the_runs_of_all(tmp_path: Path) -> None:
    # their tests are in no shard, and their cases may be in two
    parts = shards(tmp_path, 4)
    claim = part(tmp_path, CASES, "whole", {}, claims=[CLAIM]).document.claims[0]
    unjudged = claim.model_copy(update={"verdict": None})
    document = parts[0].document.model_copy(update={"claims": (unjudged,)})
    parts[0] = StoredSession(parts[0].folder, document)
    assert merge(parts, tmp_path).session.document.claims == (claim,)


def test_traces_and_pictures_of_all_are_kept(tmp_path: Path) -> None:
    one, other = parts = shards(tmp_path, 2)
    second = dataclasses.replace(on_ground(torch="2.14.0"), name="other")
    store_trace(one.folder, TRACE)
    store_trace(other.folder, TRACE)
    store_trace(other.folder, second)
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    store_pictures(one.folder, "digits", StoredPictures(images[[3, 0]], (3, 0), (7, 4)))
    store_pictures(other.folder, "digits", StoredPictures(images[[2, 3]], (2, 3), (6, 7)))
    folder = merge(parts, tmp_path).session.folder
    assert [trace.name for trace in read_traces(folder)] == [TRACE.name, "other"]
    kept = read_pictures(folder)["digits"]
    assert (kept.indices, kept.labels) == ((0, 2, 3), (4, 6, 7))
    assert kept.images.flatten().tolist() == [0, 2, 3]


def test_machines_that_differ_are_all_named(tmp_path: Path) -> None:
    one, other = CASES[:2], CASES[2:]
    parts = [
        part(tmp_path, one, "a", environment={"processor": "One CPU", "gpus": ["H100"]}),
        part(tmp_path, other, "b", environment={"processor": "Another", "gpus": ["H100", "A100"]}),
    ]
    environment = merge(parts, tmp_path).session.document.environment
    assert environment["processor"] == "One CPU + Another"
    assert environment["gpus"] == ["H100", "A100"]
    assert environment["torch"] == "2.15.0"


def unlike(results: Path, what: str) -> list[StoredSession]:
    one, other = CASES[:2], CASES[2:]
    first = part(results, one, "a")
    changes: dict[str, dict[str, Any]] = {
        "torch": {"environment": {"torch": "2.14.0"}},
        "seeds": {"options": {"seeds": 5}},
        "interrupted": {"status": "interrupted"},
        "planted": {"planted": "dead-channel"},
        "same": {"cases": CASES[1:]},
        "shard of others": {"options": {"shard": "1/3"}},
    }
    changed = changes[what]
    return [first, part(results, changed.pop("cases", other), "b", **changed)]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("torch", r"torch is 2\.15\.0 in a and 2\.14\.0 in b: expected the same in all sessions"),
        ("seeds", r"seeds is 3 in a and 5 in b: expected the same"),
        ("interrupted", r"the session b was interrupted: expected finished ones"),
        ("planted", r"the session b had the fault dead-channel planted: expected sessions of"),
        ("same", r"the case tiny-none-none-b64 was run in a and in b: expected sessions of diff"),
        ("shard of others", r"no shards of one selection \(a: all, b: 1/3\); expected the same"),
    ],
)
def test_what_are_no_parts_of_one_session_are_refused(
    tmp_path: Path, what: str, message: str
) -> None:
    parts = unlike(tmp_path, what)
    with pytest.raises(SessionError, match=message):
        merge(parts, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def changed(session: StoredSession, **fields: Any) -> StoredSession:
    """Return the session with these fields in all of its rows."""
    edit_rows(session.folder, lambda row: row | fields)
    return read_session(session.folder)


def with_document(session: StoredSession, **fields: Any) -> StoredSession:
    return StoredSession(session.folder, session.document.model_copy(update=fields))


def test_runs_of_other_code_are_refused(tmp_path: Path) -> None:
    one, other = shards(tmp_path, 2)
    parts = [changed(one, code="abc"), changed(other, code="def")]
    with pytest.raises(SessionError, match=r"the code of normbench is abc in .*-1 and def in .*-1"):
        merge(parts, tmp_path)


def test_runs_on_a_gpu_and_on_a_cpu_are_refused_and_on_two_gpus_are_not(tmp_path: Path) -> None:
    one, other = shards(tmp_path, 2)
    gpu = changed(one, device="cuda:0")
    assert merge([gpu, changed(other, device="cuda:1")], tmp_path).session.results
    with pytest.raises(SessionError, match=r"device is cuda in .* and cpu in .*: expected the sa"):
        merge([gpu, changed(other, device="cpu")], tmp_path)


def test_data_that_differ_are_refused(tmp_path: Path) -> None:
    one, other = (
        changed(each, data=content)
        for each, content in zip(shards(tmp_path, 2), ("abc", "def"), strict=True)
    )
    with pytest.raises(SessionError, match=r"the data of digits is abc in .* and def in .*: expec"):
        merge([one, other], tmp_path)


def test_data_that_a_baseline_alone_names_need_not_be_those_of_a_run(tmp_path: Path) -> None:
    # of these, a session knows the published fingerprint, whatever another decoder makes of them
    one, other = shards(tmp_path, 2)
    published = dataclasses.replace(find_dataset("digits"), content="published")
    named = with_document(one, datasets={"digits": published})
    merged = merge([named, changed(other, data="decoded")], tmp_path).session
    assert merged.document.datasets["digits"].content == "decoded"


def test_baselines_that_differ_are_to_be_chosen_from(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    baseline().write(tmp_path / "reference" / "before.json")
    parts = [
        part(tmp_path, CASES[:2], "a", {"baselines": ["before"]}),
        part(tmp_path, CASES[2:], "b", {"baselines": []}),
    ]
    with pytest.raises(SessionError, match=r"the baselines are before in a and none in b: .*--bas"):
        merge(parts, tmp_path)
    comparison = merge(parts, tmp_path, ["before"]).session.document.comparison
    assert comparison is not None
    assert len(comparison.cases) == len(CASES)


@pytest.mark.parametrize("narrowed", [0, 1])
def test_shards_of_other_selections_are_refused(tmp_path: Path, narrowed: int) -> None:
    ids = tuple(case.id for case in CASES)
    parts = [with_document(each, whole=ids) for each in shards(tmp_path, 2)]
    parts[narrowed] = with_document(parts[narrowed], whole=ids[:-1])
    wide, narrow = parts[1 - narrowed].name, parts[narrowed].name
    with pytest.raises(
        SessionError, match=rf"the case {ids[-1]} was selected in {wide} and not in {narrow}: expec"
    ):
        merge(parts, tmp_path)


def test_a_case_that_no_shard_was_dealt_is_told(tmp_path: Path) -> None:
    ids = (*(case.id for case in CASES), "tiny-other-none-b64")
    parts = [with_document(each, whole=ids) for each in shards(tmp_path, 2)]
    with pytest.raises(
        SessionError, match=r"the case tiny-other-none-b64 is in none of the shards"
    ):
        merge(parts, tmp_path)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"the shards 2/4, 4/4 are missing: expected"):
        merge(shards(tmp_path, 4)[::2], tmp_path)


def with_run(session: StoredSession, run: RunResult) -> StoredSession:
    """Return the session with one run more."""
    RunStore(session.folder).append(run)
    return read_session(session.folder)


def test_a_run_that_came_out_in_two_ways_is_refused(tmp_path: Path) -> None:
    one, other = shards(tmp_path, 2)
    spec = next(iter(one.results.values())).spec
    other = with_run(other, finished(spec, 0.5))
    with pytest.raises(SessionError, match=r"the run of .* came out differently in .* 50\.00 %"):
        merge([one, other], tmp_path)


def test_a_run_that_diverged_is_merged_as_any_other(tmp_path: Path) -> None:
    one, other = shards(tmp_path, 2)
    spec = next(iter(one.results.values())).spec
    lost = RunResult(spec, "diverged", "not finite", epochs=finished(spec).epochs)
    merged = merge([with_run(each, lost) for each in (one, other)], tmp_path).session
    assert merged.results[spec.key].status == "diverged"


def test_of_a_run_that_two_kinds_of_machine_have_trained_one_is_taken(tmp_path: Path) -> None:
    one, other = shards(tmp_path, 2)
    spec = next(iter(one.results.values())).spec
    elsewhere = {**other.document.environment, "processor": "Another CPU"}
    other = with_document(with_run(other, finished(spec, 0.9512)), environment=elsewhere)
    merged = merge([one, other], tmp_path).session
    assert merged.results[spec.key].test_accuracy == one.results[spec.key].test_accuracy
