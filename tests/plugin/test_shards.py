"""Shards of a selection, and the session that merging makes of them."""

import shutil

import pytest

from normbench.commands.main import main

from ..conftest import Project
from .test_claims import write_claims


def test_shards_share_the_tests_and_merging_makes_one_session_of_them(
    alone: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    # of one folder; the parts are the same, however many workers run them
    spread = Project(alone.pytester, "-n", "2")
    write_claims(alone)
    parts = []
    for project, shard in ((alone, "1/2"), (spread, "2/2")):
        assert project.run("--bench-shard", shard).ret == pytest.ExitCode.OK
        parts.append(project.stored)
    cases = [[stored.case.id for stored in each.document.cases] for each in parts]
    # the claims' own configurations are cases too
    assert sorted(len(each) for each in cases) == [3, 3]
    everything = {case for each in cases for case in each}
    assert len(everything) == 6
    # no shard has the runs of all, so that none judges a claim
    assert [[c.verdict for c in each.document.claims] for each in parts] == [[None, None]] * 2
    assert [each.document.options["shard"] for each in parts] == ["1/2", "2/2"]
    folders = [str(each.folder) for each in parts]
    assert main(["merge", *folders, "--results", str(alone.path / "merged")]) == 0
    assert "normbench: claims" in capsys.readouterr().out
    shutil.rmtree(alone.results)
    shutil.move(alone.path / "merged", alone.results)
    assert list(alone.verdicts.values()) == ["passed"] * 6
    assert set(alone.verdicts) == everything
    assert alone.claim_verdicts == {"batch-is-much-better": "refuted", "means": "holds"}
    assert tuple(c.case.id for c in alone.stored.document.cases) == parts[0].document.whole


def test_more_shards_than_tests_are_refused(alone: Project) -> None:
    result = alone.run("--bench-shard", "5/5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--bench-shard 5/5: 4 tests are selected, *; expected at least*"])
    assert not alone.results.exists()


def test_a_shard_is_not_resumed_as_another_one(alone: Project) -> None:
    alone.grid(target=99.9)
    alone.run("--bench-shard", "1/2", "-x").assert_outcomes(failed=1, deselected=2)
    result = alone.run("--bench-shard", "2/2", "--bench-resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*was begun with the shard 1/2, and this is 2/2: expected*"])
    alone.run("--bench-shard", "1/2", "--bench-resume").assert_outcomes(failed=2, deselected=2)
