"""Stored documents in which something is changed: read, or refused in one line, and no code run."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normbench.analysis.claims import stored_claims
from normbench.report.exports import session_document
from normbench.results import RunResult
from normbench.storage.baseline import Baseline
from normbench.storage.session import read_session

from ..mutated import cut, mutate, mutated_often
from .stored import GOLDEN

SESSIONS = ("session-1", "session-2", "session-3")
BASELINES = ("baseline-1.json", "baseline-2.json", "baseline-3.json")


@pytest.fixture(scope="module", autouse=True)
def planted_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have a module at hand whose name mutated documents hold; it must not be imported."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted_module.py").write_text("from torch.nn import Identity as make\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    assert "planted_module" not in sys.modules


def read_or_refused(read: Callable[[], object]) -> None:
    """Read, or see it refused with a message of ours: anything but a ValueError passes through."""
    try:
        read()
    except ValueError as error:
        message = str(error)
        assert message.strip()
        assert "\n" not in message.strip("\n")


def all_of_a_session(folder: Path) -> None:
    session = read_session(folder)
    assert session.results is not None
    assert session.traces is not None
    stored_claims(session)
    session.require_rows()
    Baseline.of_session(session)
    json.dumps(session_document(session))


@contextmanager
def copy_of(session: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(GOLDEN / session, Path(folder) / session))


@given(data=st.data(), name=st.sampled_from(SESSIONS))
@mutated_often
def test_a_mutated_session_is_read_or_refused(data: st.DataObject, name: str) -> None:
    with copy_of(name) as folder:
        file = folder / "session.json"
        file.write_text(json.dumps(mutate(data, json.loads(file.read_text()))))
        read_or_refused(lambda: all_of_a_session(folder))


@given(
    data=st.data(),
    name=st.sampled_from(SESSIONS),
    file=st.sampled_from(("session.json", "runs.jsonl")),
)
@mutated_often
def test_a_session_with_bytes_changed_is_read_or_refused(
    data: st.DataObject, name: str, file: str
) -> None:
    with copy_of(name) as folder:
        (folder / file).write_bytes(cut(data, (folder / file).read_bytes()))
        read_or_refused(lambda: all_of_a_session(folder))


@given(data=st.data(), name=st.sampled_from(SESSIONS))
@mutated_often
def test_a_mutated_row_is_read_or_refused(data: st.DataObject, name: str) -> None:
    with copy_of(name) as folder:
        file = folder / "runs.jsonl"
        first, *others = file.read_text().splitlines()
        file.write_text("\n".join([json.dumps(mutate(data, json.loads(first))), *others, ""]))
        read_or_refused(lambda: all_of_a_session(folder))


@given(data=st.data(), name=st.sampled_from(BASELINES))
@mutated_often
def test_a_mutated_baseline_is_read_or_refused(data: st.DataObject, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_text(json.dumps(mutate(data, json.loads((GOLDEN / name).read_text()))))
        read_or_refused(lambda: Baseline.read(file))


@given(data=st.data())
@mutated_often
def test_what_is_read_of_a_row_is_what_is_written_of_it(data: st.DataObject) -> None:
    first, *_ = (GOLDEN / "session-3" / "runs.jsonl").read_text().splitlines()
    row = mutate(data, json.loads(first))
    try:
        run = RunResult.from_row(row)
    except ValueError:
        return
    assert RunResult.from_row(json.loads(json.dumps(run.to_row(), allow_nan=False))) == run
