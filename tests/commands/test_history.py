"""``normbench history``: sessions, cases, one case, and sessions from elsewhere."""

import dataclasses
import json
from pathlib import Path

import pytest

from normbench.cases.case import Case
from normbench.commands.main import main
from normbench.spec import RunSpec

from ..storage.stored import edit_document, finished, judged, store_session

SPEC = RunSpec("digits", "digits", "batch", recipe="digits")
OTHER = dataclasses.replace(SPEC, norm="layer")


def store(results: Path, night: int, **accuracies: float) -> Path:
    """Store the session of a night, of one run of each norm."""
    specs = {dataclasses.replace(SPEC, norm=norm): value for norm, value in accuracies.items()}
    cases = [Case("digits", "smoke", spec, 0.5) for spec in specs]
    runs = [finished(spec, accuracy) for spec, accuracy in specs.items()]
    torch = "2.14.0" if night < 20 else "2.15.0"
    session = store_session(
        results, judged(cases, runs), runs, name=f"s{night:02}", environment={"torch": torch}
    )
    edit_document(session.folder, started=f"2026-01-{night + 1:02}T00:00:00+00:00")
    return session.folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-one nights; batch has dropped by five points when torch changed."""
    results = tmp_path_factory.mktemp("results")
    for night in range(31):
        noise = 0.002 * (night * 7 % 5 - 2)
        store(results, night, layer=0.97 - noise, batch=0.97 + noise - 0.05 * (night >= 20))
    return results


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["history", *arguments]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_the_last_sessions_and_their_cases_are_listed_those_that_changed_first(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions, cases, legend, *rest = told(capsys, "--results", str(results)).split("\n\n")
    # thirty, the newest last, below two lines of headings
    assert [row.split()[0] for row in sessions.splitlines()[2:]] == [
        f"s{night:02}" for night in range(1, 31)
    ]
    names = [row[:38] for row in cases.splitlines()[2:]]
    assert names == [
        "digits: digits batch-none-b64, 1 epoch",
        "digits: digits layer-none-b64, 1 epoch",
    ]
    assert legend.startswith("A character for each session")
    assert rest == []
    text = told(capsys, "--results", str(results), "--last", "2", "--change-points")
    assert "s28" not in text
    assert text.endswith("as far as these sessions tell.\n")


def test_change_points_tell_since_when_and_what_else_changed(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, "--results", str(results), "--change-points")
    (line,) = (row for row in text.splitlines() if "points since" in row)
    assert line.startswith("digits: digits batch-none-b64, 1 epoch: -5.0")
    assert "points since s20 (2026-01-21 00:00): torch 2.14.0 -> 2.15.0; adjusted p" in line


def test_one_case_is_told_session_by_session(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # all of its sessions, where no number is asked for
    lines = told(capsys, "batch", "--results", str(results), "--change-points").splitlines()
    assert lines[0] == "digits: digits batch-none-b64, 1 epoch"
    assert sum(line.startswith("s") and line[1:3].isdigit() for line in lines) == 31
    # a name may be typed without quotes
    words = ["digits", "layer-none-b64,", "1", "epoch"]
    lines = told(capsys, *words, "--results", str(results), "--last", "3").splitlines()
    assert lines[0] == "digits: digits layer-none-b64, 1 epoch"
    assert [line[:3] for line in lines[5:]] == ["s28", "s29", "s30"]


def test_programs_read_the_same(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = json.loads(told(capsys, "--results", str(results), "--json", "--change-points"))
    assert [session["name"] for session in read["sessions"]][-1] == "s30"
    assert [case["norm"] for case in read["cases"]] == ["batch", "layer"]
    assert read["cases"][0]["changes"][0]["after"] == "s20"
    read = json.loads(told(capsys, "layer", "--results", str(results), "--json"))
    assert [case["norm"] for case in read["cases"]] == ["layer"]
    assert len(read["cases"][0]["points"]) == 31


def test_a_name_that_is_not_clear_and_a_folder_without_sessions_are_told_in_one_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, "b64", "--results", str(results), code=2)
    assert text == (
        "normbench: 'b64' names 2 cases: expected one of digits: digits layer-none-b64, 1 epoch; "
        "digits: digits batch-none-b64, 1 epoch\n"
    )
    text = told(capsys, "--results", str(tmp_path), code=2)
    assert text.startswith(f"normbench: {tmp_path}/runs holds no session: expected what normbench")
    assert text.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["history", "--last", "0"])
    assert "'0': expected a whole number from 1 up" in capsys.readouterr().err


def test_what_cannot_be_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, 1, batch=0.97)
    (tmp_path / "runs" / "s02").mkdir()
    text = told(capsys, "--results", str(tmp_path))
    assert "passed over: cannot read the session" in text
    assert "s02/session.json: No such file" in text


def test_sessions_are_imported_from_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store(tmp_path / "ci", 1, batch=0.97)
    here = ("--results", str(tmp_path / "here"))
    assert told(capsys, "import", str(tmp_path / "ci"), *here) == f"imported s01 ({folder})\n"
    assert told(capsys, *here, "import", str(folder)) == f"s01 is there already ({folder})\n"
    assert "s01  " in told(capsys, *here)
    assert told(capsys, "import", *here, code=2).startswith("normbench: nothing to import: name")
    text = told(capsys, "import", str(folder), "--json", *here, code=2)
    assert text == "normbench: --json, --last and --change-points are not for import\n"
