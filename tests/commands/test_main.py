"""``normbench``: which commands there are, what is said of each, and how one ends."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from normbench import __version__
from normbench.commands.main import COMMANDS, main

from ..conftest import tiny_grid
from ..storage.stored import golden_copy


class Noted(argparse.ArgumentParser):
    """A parser that notes what it is told of its arguments."""

    def __init__(self) -> None:
        self.noted: dict[str, dict[str, Any]] = {}
        super().__init__(add_help=False)

    def add_argument(self, *names: Any, **attributes: Any) -> argparse.Action:
        self.noted[names[0]] = attributes
        return super().add_argument(*names, **attributes)


def test_alone_it_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    for name in ("run", "compare", "baseline", "report", "schema"):
        assert f"\n    {name} " in listed
        assert import_module(f"normbench.commands.{name}").HELP.split()[0] in listed


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"normbench {__version__}\n"


def test_a_command_that_is_not_there_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["train"])
    assert "invalid choice: 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_of_a_command_has_help(command: str) -> None:
    module = import_module(f"normbench.commands.{command}")
    parser = Noted()
    module.add_arguments(parser)
    assert parser.noted
    assert [name for name, said in parser.noted.items() if not said.get("help")] == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "run"])
def test_a_command_tells_more_of_itself(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match=r"^0$"):
        main([command, "--help"])
    first, *_ = (import_module(f"normbench.commands.{command}").__doc__ or "").splitlines()
    assert first in capsys.readouterr().out


def no_folder(folder: Path) -> Path:
    return folder / "nowhere"


def empty_folder(folder: Path) -> Path:
    return folder


def broken_document(folder: Path) -> Path:
    (folder / "session.json").write_text('{"schema": 2,', encoding="utf-8")
    return folder


def unknown_schema(folder: Path) -> Path:
    (folder / "session.json").write_text('{"schema": 99}', encoding="utf-8")
    return folder


def broken_row(folder: Path) -> Path:
    document = {
        "schema": 2,
        "session": "20260101-000000-1",
        "status": "finished",
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "workers": 1,
        "environment": {},
        "options": {},
        "cases": [
            {
                "grid": "tiny",
                "tier": "smoke",
                "spec": {"dataset": "digits", "network": "digits", "norm": "batch"},
                "target": 0.5,
                "verdict": "passed",
            }
        ],
    }
    (folder / "session.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "runs.jsonl").write_text('{"schema": 1}\n', encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "damage", [no_folder, empty_folder, broken_document, unknown_schema, broken_row]
)
@pytest.mark.parametrize(
    "arguments", [["compare", "digits"], ["baseline", "mine"], ["report"]], ids=lambda a: a[0]
)
def test_a_folder_that_is_no_session_ends_a_command_with_2_and_one_line(
    arguments: list[str],
    damage: Callable[[Path], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = damage(tmp_path)
    assert main([*arguments, str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("normbench: ")
    assert str(folder) in line


def test_a_schema_is_printed_that_names_the_keys_of_a_cases_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    keys = {line.partition(" =")[0] for line in tiny_grid().splitlines() if " = " in line}
    assert keys == {
        *("schema", "tier", "dataset", "network", "recipe", "epochs"),
        *("norm", "regularizer", "batch_size", "test_accuracy"),
    }
    assert {"schema", "tier", "dataset", "network", "recipe", "epochs"} <= set(schema["properties"])
    assert main(["schema", "claims"]) == 0
    assert "claim" in json.loads(capsys.readouterr().out)["properties"]


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    command = f"{sys.executable} -m normbench schema | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_a_report_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = golden_copy("session-2", tmp_path)
    (folder / "report.html").mkdir()
    before = {file.name for file in folder.iterdir()}
    assert main(["report", str(folder)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("normbench: ")
    assert len(told.splitlines()) == 1
    assert {file.name for file in folder.iterdir()} == before


def test_a_report_of_lost_rows_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = golden_copy("session-2", tmp_path)
    (folder / "runs.jsonl").unlink()
    assert main(["report", str(folder)]) == 2
    assert "runs.jsonl has none of the runs that session.json tells of" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["session-1", "session-2"])
def test_a_report_of_which_one_row_is_lost_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = golden_copy(name, tmp_path)
    rows = (folder / "runs.jsonl").read_text().splitlines(keepends=True)
    # the second seed of batch normalization, which a claim has
    kept = [row for row in rows if not ('"norm": "batch"' in row and '"seed": 1' in row)]
    assert len(rows) - len(kept) == 1
    (folder / "runs.jsonl").write_text("".join(kept))
    assert main(["report", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "runs.jsonl lacks some of the runs that session.json tells of, such as those of " in line
    assert "claims-tiny-batch-l2:0.001-b64; expected the rows" in line
