"""Shards of a selection, and the session that merging makes of them."""

import shutil
from pathlib import Path

import pytest

from normbench.commands.main import main
from normbench.storage.session import StoredSession

from ..conftest import Project
from .test_claims import write_claims


def run_shards(project: Project, count: int) -> list[StoredSession]:
    """Run each shard, and return the sessions that they leave."""
    sessions = []
    for number in range(1, count + 1):
        assert project.run("--bench-shard", f"{number}/{count}").ret == pytest.ExitCode.OK
        sessions.append(project.stored)
    return sessions


def merged(project: Project, *sources: Path) -> int:
    return main(["merge", *map(str, sources), "--results", str(project.path / "merged")])


def test_shards_share_the_tests_and_merging_makes_one_session_of_them(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write_claims(project)
    parts = run_shards(project, 2)
    cases = [[stored.case.id for stored in each.document.cases] for each in parts]
    # the claims' own configurations are cases too
    assert sorted(len(each) for each in cases) == [3, 3]
    everything = {case for each in cases for case in each}
    assert len(everything) == 6
    # no shard has the runs of all, so that none judges a claim
    assert [[c.verdict for c in each.document.claims] for each in parts] == [[None, None]] * 2
    assert [each.document.options["shard"] for each in parts] == ["1/2", "2/2"]
    assert merged(project, *(each.folder for each in parts)) == 0
    assert "normbench: claims" in capsys.readouterr().out
    shutil.rmtree(project.results)
    shutil.move(project.path / "merged", project.results)
    assert list(project.verdicts.values()) == ["passed"] * 6
    assert set(project.verdicts) == everything
    assert project.claim_verdicts == {"batch-is-much-better": "refuted", "means": "holds"}
    assert tuple(c.case.id for c in project.stored.document.cases) == parts[0].document.whole


def test_sessions_are_merged_out_of_a_zip_file(alone: Project) -> None:
    run_shards(alone, 2)
    archive = shutil.make_archive(str(alone.path / "nightly"), "zip", alone.results / "runs")
    assert merged(alone, Path(archive)) == 0


def test_a_merged_session_below_a_target_raises_an_alarm(alone: Project) -> None:
    alone.grid(target=99.9)
    for number in (1, 2):
        alone.run("--bench-shard", f"{number}/2").assert_outcomes(failed=2, deselected=2)
    assert merged(alone, alone.results / "runs") == 1


def test_a_shard_that_is_missing_is_told(
    alone: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    alone.run("--bench-shard", "2/4").assert_outcomes(passed=1, deselected=3)
    assert merged(alone, alone.results / "runs") == 2
    assert "normbench: the shards 1/4, 3/4, 4/4 are missing" in capsys.readouterr().err


def test_more_shards_than_tests_are_refused(project: Project) -> None:
    result = project.run("--bench-shard", "5/5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--bench-shard 5/5: 4 tests are selected, *; expected at least*"])
    assert not project.results.exists()


def test_a_shard_is_not_resumed_as_another_one(alone: Project) -> None:
    alone.grid(target=99.9)
    alone.run("--bench-shard", "1/2", "-x").assert_outcomes(failed=1, deselected=2)
    result = alone.run("--bench-shard", "2/2", "--bench-resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*was begun with the shard 1/2, and this is 2/2: expected*"])
    alone.run("--bench-shard", "1/2", "--bench-resume").assert_outcomes(failed=2, deselected=2)
