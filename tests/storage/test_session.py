"""The session's folder: found again by its link, whole at any time, and signed by its machine."""

import json
import time

import pytest
import torch

from normbench.storage.environment import environment
from normbench.storage.session import Session, SessionError, new_session_name, write_atomic


def test_latest_leads_to_the_newest_session(tmp_path):
    for name in ("first", "second"):
        Session(tmp_path, name).open()
    assert (tmp_path / "latest").resolve() == tmp_path / "runs" / "second"
    assert (tmp_path / "runs" / "first" / "session.json").exists()


def test_latest_is_a_file_where_links_are_refused(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise OSError("a required privilege is not held")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    Session(tmp_path, "only").open()
    assert (tmp_path / "latest").read_text().strip().endswith("only")


def test_a_session_says_whether_it_is_over(tmp_path):
    session = Session(tmp_path, "s", workers=3, verdicts={"case": "passed"})
    session.open()
    running = json.loads((session.folder / "session.json").read_text())
    assert (running["schema"], running["status"], running["ended"]) == (1, "running", None)
    session.write("finished")
    finished = json.loads((session.folder / "session.json").read_text())
    assert finished["status"] == "finished"
    assert finished["ended"] >= finished["started"]
    assert (finished["workers"], finished["verdicts"]) == (3, {"case": "passed"})


def test_a_folder_that_cannot_be_made_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SessionError, match=r"cannot write results to .*--bench-results DIR"):
        Session(tmp_path / "file", "s").open()


def test_the_environment_names_machine_versions_and_commit(tmp_path):
    described = environment(tmp_path)
    assert described["torch"] == torch.__version__
    assert described["cores"] >= 1
    assert described["processor"]
    assert described["torchvision"]
    assert described["commit"] is None


def test_a_file_is_replaced_whole(tmp_path):
    file = tmp_path / "file"
    for text in ("first", "second"):
        write_atomic(file, text)
        assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]


def test_sessions_of_one_process_and_one_second_have_names_of_their_own_in_order():
    names = []
    for _ in range(3):
        names.append(new_session_name())
        time.sleep(0.001)
    assert len(set(names)) == 3
    assert names == sorted(names)
