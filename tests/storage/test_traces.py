"""Traces in a session's folder and in baselines: read as they were written, joined, refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from normbench.check.trace_record import Trace
from normbench.storage.baseline import Baseline, BaselineError, merge_baselines
from normbench.storage.session import SessionError, read_session
from normbench.storage.traces import read_traces, store_trace

from .stored import TRACE, finished, on_ground, store_session

RUN = finished(TRACE.spec, 0.9)


def baseline(*traces: Trace) -> Baseline:
    return Baseline.of_runs("b", "2026-01-01", 2, False, {}, [RUN], traces)


def test_traces_are_read_by_their_names_as_they_were_stored(tmp_path: Path) -> None:
    second = dataclasses.replace(TRACE, name="a:b/c", beside=("numerics changed",))
    for trace in (TRACE, second, TRACE):
        store_trace(tmp_path, trace)
    assert read_traces(tmp_path) == (second, TRACE)
    assert read_traces(tmp_path / "none") == ()


def test_a_damaged_trace_is_told_with_its_file(tmp_path: Path) -> None:
    folder = store_session(tmp_path / "session", runs=[RUN]).folder
    store_trace(folder, TRACE)
    (file,) = (folder / "traces").iterdir()
    file.write_text('{"name": "x"}')
    told = r"cannot read .*/traces/\w+.json: the trace x is damaged: 'spec' is missing; remove"
    with pytest.raises(SessionError, match=told):
        _ = read_session(folder).traces


def test_a_digest_too_few_is_no_trace() -> None:
    values = {**TRACE.to_dict(), "digests": {**TRACE.digests, "logits": "00000000"}}
    with pytest.raises(ValueError, match="logits has not 8 digits of a digest for each norm"):
        Trace.of_dict(values)


def test_a_loss_too_few_is_no_trace() -> None:
    values = {**TRACE.to_dict(), "losses": TRACE.losses[:1]}
    with pytest.raises(ValueError, match=r"digits-batch-none is damaged: .* norms beside 1 losses"):
        Trace.of_dict(values)


def test_what_a_later_version_adds_is_left_out() -> None:
    assert Trace.of_dict({**TRACE.to_dict(), "new": 1}) == TRACE


def test_a_baseline_keeps_the_traces_that_are_not_broken(tmp_path: Path) -> None:
    folder = store_session(tmp_path / "session", runs=[RUN]).folder
    store_trace(folder, TRACE)
    store_trace(folder, dataclasses.replace(TRACE, name="wrong", broken=("step 1",)))
    kept = Baseline.of_session(read_session(folder))
    assert kept.traces == (TRACE,)
    kept.write(tmp_path / "b.json")
    assert Baseline.read(tmp_path / "b.json") == kept


def test_a_baseline_with_a_damaged_trace_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    baseline(TRACE).write(file)
    document = json.loads(file.read_text())
    del document["traces"][0]["ground"]["torch"]
    file.write_text(json.dumps(document))
    told = r"b.json: the trace digits-batch-none is damaged: 'torch' is missing; expected"
    with pytest.raises(BaselineError, match=told):
        Baseline.read(file)


def test_equal_traces_join_and_those_of_other_ground_stand_beside_each_other() -> None:
    other = dataclasses.replace(
        on_ground(processor="Other CPU"),
        digests={name: "f" * len(row) for name, row in TRACE.digests.items()},
    )
    assert merge_baselines("b", [baseline(TRACE), baseline(TRACE, other)]).traces == (TRACE, other)


@pytest.mark.parametrize("field", ["digests", "losses"])
def test_traces_that_differ_on_one_ground_do_not_join(field: str) -> None:
    changed: dict[str, Any] = {
        "digests": {name: "f" * len(row) for name, row in TRACE.digests.items()},
        "losses": tuple(2 * loss for loss in TRACE.losses),
    }
    other = dataclasses.replace(TRACE, **{field: changed[field]})
    with pytest.raises(BaselineError, match="cannot join the traces digits-batch-none: they diff"):
        merge_baselines("b", [baseline(TRACE), baseline(other)])
