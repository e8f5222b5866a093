"""``normbench sensitivity``: which stage finds a fault, in what order, and what is told of it."""

import argparse
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.sensitivity import Sensitivity
from normbench.check.faults import FAULTS
from normbench.commands import sensitivity
from normbench.commands.main import main
from normbench.commands.stages import STAGES, Stage, StageRunner, stage_command
from normbench.report.sensitivity import BEGIN, END, sensitivity_page, write_page
from normbench.storage.sensitivity import Detection, StageEnd, read_detections

NORMS = ["batch-epsilon", "batch-momentum", "group-shift-lost"]
# Of other parts.
GRADIENT, OTHER = "convolution-gradient-halved", "pool-gradient-spread"


class Runner:
    """Stands in for the processes: a stage ends as ``ends`` says of a fault, else it passes.

    Each takes ``seconds``.
    """

    def __init__(
        self, ends: Mapping[tuple[str, Any], int] | None = None, seconds: float = 7.0
    ) -> None:
        self.ends = ends or {}
        self.seconds = seconds
        self.ran: list[tuple[str, str | None]] = []

    def __call__(self, stage: Stage, fault: str | None) -> StageEnd:
        self.ran.append((stage.name, fault))
        code = self.ends.get((stage.name, fault), 0)
        test, told = ("test_it[batch]", "it is | <off>") if code == 1 else ("", "no such file")
        told = told if code else ""
        return StageEnd(stage=stage.name, code=code, seconds=self.seconds, test=test, told=told)


def run(runner: Runner, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    sensitivity.add_arguments(parser)
    return sensitivity.main(parser.parse_args(arguments), runner)


def test_the_stages_stand_in_their_order() -> None:
    assert tuple(STAGES) == sensitivity.STAGE_NAMES
    assert tuple(STAGES) == ("check", "trace", "smoke", "mnist", "baseline")


def test_a_fault_goes_through_the_stages_up_to_the_one_that_finds_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runner = Runner({("check", NORMS[0]): 1, ("smoke", GRADIENT): 1})
    # one of three is not found
    assert run(runner, NORMS[0], GRADIENT, OTHER) == 1
    everything = ["check", "trace", "smoke", "mnist", "baseline"]
    assert runner.ran == [
        *((stage, None) for stage in everything),
        ("check", NORMS[0]),
        *((stage, GRADIENT) for stage in everything[:3]),
        *((stage, OTHER) for stage in everything),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"{NORMS[0]} +norm +check +7\.0 s  test_it\[batch\]: it is \| <off>", lines[0]
    )
    assert re.fullmatch(rf"{GRADIENT} +gradient +smoke +21\.0 s  .*", lines[1])
    assert re.fullmatch(rf"{OTHER} +gradient +not found +35\.0 s", lines[2])
    assert lines[3:] == [
        "",
        "2 of 3 faults found (66.7 %): 1 by check, 1 by smoke; 2 within 60 s (66.7 %)",
        f"not found: {OTHER}",
        "too little: 2 of 3 found: expected 95 % or more of them",
        "too little: 2 of 3 found within 60 s: expected 90 % or more of them",
    ]


def test_stages_are_chosen_and_keep_their_order() -> None:
    runner = Runner({("trace", OTHER): 1})
    assert run(runner, OTHER, "--stage", "trace", "--stage", "check") == 0
    assert runner.ran == [(stage, fault) for fault in (None, OTHER) for stage in ("check", "trace")]


def test_without_names_every_fault_is_planted() -> None:
    found = {("check", name): 1 for name in FAULTS}
    runner = Runner(found)
    assert run(runner, "--stage", "check") == 0
    assert runner.ran == [("check", None), *found]


def test_a_stage_that_fails_without_a_fault_ends_it_all() -> None:
    runner = Runner({("smoke", None): 1})
    with pytest.raises(
        ValueError,
        match=r"the stage smoke ended with 1 though no fault was planted \(test_it\[batch\]: it is",
    ):
        run(runner, OTHER)
    assert runner.ran == [("check", None), ("trace", None), ("smoke", None)]


def test_a_stage_that_cannot_be_run_ends_it_all_without_a_fault_as_well() -> None:
    runner = Runner({("trace", None): 4})
    with pytest.raises(ValueError, match=r"trace ended with 4 though no .* \(no such file\)"):
        run(runner, OTHER)
    assert runner.ran == [("check", None), ("trace", None)]


def test_any_other_code_is_told_and_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    runner = Runner({("check", GRADIENT): 3, ("trace", GRADIENT): 1, ("check", OTHER): -11})
    assert run(runner, GRADIENT, OTHER, "--stage", "check", "--stage", "trace") == 1
    lines = capsys.readouterr().out.splitlines()
    assert re.match(rf"{GRADIENT} +gradient +trace +14\.0 s", lines[0])
    assert lines[1] == "check ended with 3: no such file"
    assert re.match(rf"{OTHER} +gradient +not found +14\.0 s", lines[2])
    assert lines[3] == "check ended with -11: no such file"


def detection(part: str, stage: str | None, seconds: float, number: int = 0) -> Detection:
    """Return the search for a fault that ``stage`` found after ``seconds``, or none did."""
    code = 0 if stage is None else 1
    where: dict[str, Any] = {"torch": "2.15.0", "processor": "Some CPU"}
    return Detection(
        fault=f"{part}-{number}",
        part=part,
        stages=("check", "trace"),
        ends=(StageEnd(stage=stage or "trace", code=code, seconds=seconds),),
        date="2026-01-01",
        **where,
    )


def of(found: int, missed: int = 0, late: int = 0) -> Sensitivity:
    """Return what becomes of faults of which so many are found, missed, and found too late."""
    return Sensitivity(
        [
            *(detection("loss", "trace", 60.0, n) for n in range(found)),
            *(detection("loss", None, 9.0, n) for n in range(missed)),
            *(detection("loss", "trace", 60.1, n) for n in range(late)),
        ]
    )


def test_as_many_are_found_as_are_asked_for() -> None:
    assert of(19, missed=1).shortcomings() == []
    assert of(18, missed=2).shortcomings() == [
        "18 of 20 found: expected 95 % or more of them",
    ]
    assert of(18, late=2).shortcomings() == []
    assert of(17, late=3).shortcomings() == [
        "17 of 20 found within 60 s: expected 90 % or more of them"
    ]


def test_a_fault_of_a_norm_is_to_be_found_by_the_check() -> None:
    checked, traced = detection("norm", "check", 5.0), detection("norm", "trace", 9.0, 1)
    assert Sensitivity([checked]).shortcomings() == []
    assert Sensitivity([checked, traced]).shortcomings() == [
        "1 fault of norms not found by the check alone: norm-1"
    ]
    without_check = traced.model_copy(update={"stages": ("trace",)})
    assert Sensitivity([without_check]).shortcomings() == []


def test_what_is_found_is_kept_and_gone_on_from(tmp_path: Path) -> None:
    state = tmp_path / "made" / "state.jsonl"
    arguments = ("--state", str(state), "--stage", "check")
    first = Runner({("check", NORMS[0]): 1}, seconds=3.25)
    run(first, NORMS[0], OTHER, *arguments)
    stored = read_detections(state)
    assert [each.fault for each in stored] == ["", NORMS[0], OTHER]
    assert stored[1].found == StageEnd(
        stage="check", code=1, seconds=3.25, test="test_it[batch]", told="it is | <off>"
    )
    # as a process that was killed leaves it
    with state.open("a", encoding="utf-8") as lines:
        lines.write('{"schema": 1, "fault": "group')
    again = Runner({("check", NORMS[1]): 1})
    assert run(again, NORMS[0], NORMS[1], *arguments) == 0
    assert again.ran == [("check", NORMS[1])]
    assert [each.fault for each in read_detections(state)] == ["", NORMS[0], OTHER, NORMS[1]]


def test_a_state_of_other_stages_is_refused(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state.jsonl"))
    run(Runner(), OTHER, *state, "--stage", "check")
    with pytest.raises(ValueError, match=r"state.jsonl: .* stages = \('check',\), and this is \("):
        run(Runner(), OTHER, *state)


def test_a_state_of_another_torch_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    run(Runner(), OTHER, "--state", str(state), "--stage", "check")
    state.write_text(re.sub(r'"torch": "[^"]+"', '"torch": "1.0"', state.read_text()))
    with pytest.raises(ValueError, match=r"found with torch = 1.0, and this is .*: name another"):
        run(Runner(), OTHER, "--state", str(state), "--stage", "check")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("no\n", r"state.jsonl, line 1: it is not JSON"),
        ("{}\n", r"state.jsonl, line 1: schema is missing"),
        ('{"schema": 2}\n', r"its schema is 2, and this version reads 1; a later version"),
        ('{"schema": 1, "fault": 3}\n', r"line 1: fault: expected a text, came 3"),
        ("[1]\n", r"line 1: expected a JSON object, came \[1\]"),
    ],
)
def test_a_state_that_is_none_is_refused(line: str, told: str, tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    state.write_text(line)
    with pytest.raises(ValueError, match=told):
        run(Runner(), OTHER, "--state", str(state))


def test_a_page_has_the_table_and_keeps_its_text(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\n\nThe end.\n")
    runner = Runner({("check", NORMS[0]): 1, ("smoke", GRADIENT): 1})
    assert run(runner, NORMS[0], GRADIENT, OTHER, "--output", str(page)) == 1
    text = page.read_text()
    assert text.startswith(f"# Mine\n\n{BEGIN}\n\n2 of 3 faults found")
    assert text.endswith(f"{END}\n\nThe end.\n")
    assert "old" not in text
    rows = {
        cells[1]: cells[2:-1]
        for line in text.splitlines()
        if line.startswith("|") and (cells := re.split(r" *(?<!\\)\| *", line))
    }
    fault = FAULTS[NORMS[0]]
    assert rows[fault.name] == [
        *(fault.told, fault.source, "norm", "check", "7", r"test_it[batch]: it is \| &lt;off>"),
    ]
    assert rows[GRADIENT][3:5] == ["smoke", "21"]
    assert rows[OTHER][3:] == ["**not found**", "35", ""]
    assert f"- **{OTHER}**: no reason is on record." in text
    assert re.search(r"Measured on one core of .*, torch 2\.\S+, commit .*, 20\d\d-", text)
    # written again, it is the same
    write_page(page, text.partition(f"{BEGIN}\n\n")[2].partition(f"\n\n{END}")[0])
    assert page.read_text() == text


def test_why_a_fault_is_not_found_is_told() -> None:
    class Known:
        name, told, source, why_not_found = "loss-0", "It is odd.", "", "Nothing sees it."

    assert "- **loss-0**: Nothing sees it." in sensitivity_page(of(0, missed=1), {"loss-0": Known})


def test_a_page_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Mine\n")
    runner = Runner()
    with pytest.raises(ValueError, match=r"page.md: expected a page with the lines '<!-- begin"):
        run(runner, OTHER, "--output", str(page))
    assert page.read_text() == "# Mine\n"
    # it is told before hours have gone by
    assert runner.ran == []


def test_a_fault_that_is_named_twice_is_planted_once() -> None:
    runner = Runner({("check", OTHER): 1})
    assert run(runner, OTHER, OTHER, "--stage", "check") == 0
    assert runner.ran == [("check", None), ("check", OTHER)]


def test_programs_read_json(capsys: pytest.CaptureFixture[str]) -> None:
    runner = Runner({("check", NORMS[0]): 1})
    assert run(runner, NORMS[0], OTHER, "--stage", "check", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["by_stage"] == {"check": 1}
    assert (document["found"], document["found_soon"]) == (1, 1)
    assert len(document["shortcomings"]) == 2
    found, missed = document["faults"]
    assert (found["fault"], found["part"], found["found_by"]) == (NORMS[0], "norm", "check")
    assert (found["seconds"], found["test"]) == (7.0, "test_it[batch]")
    assert (missed["fault"], missed["found_by"], missed["told"]) == (OTHER, None, "")


def test_the_faults_are_listed_with_their_parts_and_sources(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sensitivity", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(FAULTS)
    keras = next(line for line in lines if line.startswith("batch-running-variance-biased (norm):"))
    assert keras.endswith("(https://github.com/keras-team/keras/issues/8982)")


def test_an_unknown_fault_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensitivity", "batch-epsilom"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("normbench: unknown fault 'batch-epsilom': expected one of ")
    assert "batch-epsilon" in line


@pytest.mark.parametrize("limit", ["0", "-1", "soon", "inf", "nan"])
def test_a_limit_that_is_none_is_refused(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["sensitivity", "--limit", limit])
    assert f"{limit!r}: expected a number of seconds above 0" in capsys.readouterr().err


def pairs(arguments: list[str]) -> set[tuple[str, str]]:
    return set(pairwise(arguments))


def test_a_stage_is_a_part_of_the_packaged_suite_with_the_fault_planted(tmp_path: Path) -> None:
    command = stage_command(STAGES["baseline"], OTHER, tmp_path)
    assert {
        ("--bench-plant", OTHER),
        ("--bench-tier", "smoke"),
        ("--bench-baseline", "digits"),
        ("-p", "no:xdist"),
        ("-p", "no:cacheprovider"),
        ("--bench-results", str(tmp_path / "results")),
    } <= pairs(command)
    assert "-x" in command
    (file,) = (argument for argument in command if argument.endswith("test_digits.py"))
    assert Path(file).is_file()
    assert "--bench-plant" not in stage_command(STAGES["baseline"], None, tmp_path)


def test_a_real_fault_is_found_by_the_check_and_says_what_broke(tmp_path: Path) -> None:
    network = Stage("check", "test_conformance.py", ("-k", "test_network and digits"))
    run_stage = StageRunner(tmp_path / "compiled", 300.0)
    sound = run_stage(network, None)
    assert (sound.code, sound.test, sound.told) == (0, "", "")
    broken = run_stage(network, "first-convolution-gradient-zero")
    assert (broken.code, broken.red, broken.test) == (1, True, "test_network[digits]")
    assert broken.told == (
        "with norm batch, every parameter gets a gradient: blocks.block1.convolution.weight get "
        "none"
    )
    assert 1 < broken.seconds < 300
    # nothing is left where it ran
    assert list(tmp_path.iterdir()) == []


def test_a_fault_that_is_compiled_is_found_where_the_sound_one_was_compiled_before(
    tmp_path: Path,
) -> None:
    batch = Stage("check", "test_conformance.py", ("-k", "test_norm and batch"))
    run_stage = StageRunner(tmp_path / "compiled", 600.0)
    assert run_stage(batch, None).code == 0
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    if not kept:
        pytest.skip("nothing was compiled: there is no C++ compiler here")
    broken = run_stage(batch, "batch-evaluation-compiled")
    assert broken.told.startswith("numerics, torch.compile, evaluation: the output is off by")
    # the fault has left nothing that a sound session would take
    assert kept == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}


def test_a_session_that_is_no_pass_is_red_without_a_failed_test(tmp_path: Path) -> None:
    one = ("--bench-tier", "smoke", "-k", "digits-batch-none-b64")
    other = Stage("baseline", "test_digits.py", (*one, "--bench-baseline", "cpu-mnist-plain"))
    ended = StageRunner(tmp_path, 300.0)(other, None)
    assert (ended.code, ended.red, ended.test) == (1, True, "")
    assert ended.told.startswith("nothing was compared with the baseline cpu-mnist-plain")


def test_a_stage_that_is_not_there_is_told(tmp_path: Path) -> None:
    ended = StageRunner(tmp_path, 300.0)(Stage("trace", "test_nowhere.py"), OTHER)
    assert (ended.code, ended.broke, ended.red) == (4, True, False)
    assert ended.told.startswith("ERROR: file or directory not found: ")
    assert ended.told.endswith("test_nowhere.py")


def test_a_stage_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    ended = StageRunner(tmp_path, 0.2)(STAGES["check"], OTHER)
    assert (ended.code, ended.told) == (124, "stopped after 0.2 s, the limit")
    assert ended.broke


def test_a_file_that_cannot_be_written_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, file in (
        ("--state", tmp_path),
        ("--output", tmp_path),
        ("--output", tmp_path / "missing" / "page.md"),
    ):
        assert main(["sensitivity", "sgd-dampening", option, str(file)]) == 2
        assert f"normbench: {file}: expected a file to write to, " in capsys.readouterr().err
