"""``normbench merge``: where it takes sessions from, and what it exits with."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from normbench.cases.case import Case
from normbench.commands.main import main
from normbench.spec import RunSpec
from normbench.storage.session import latest_session, read_session

from ..storage.stored import baseline_of, finished, judged, store_session

SPECS = [RunSpec("digits", "digits", norm, recipe="digits") for norm in ("batch", "layer", "none")]


def store_shard(
    folder: Path, number: int, accuracy: float = 0.95, options: Mapping[str, Any] | None = None
) -> Path:
    """Store the shard that has one of three cases, below its target of 90 % or above it."""
    case = Case("tiny", "smoke", SPECS[number - 1], target=0.9)
    runs = [finished(case.spec, accuracy)]
    outcomes = {case.id: "passed" if accuracy > 0.9 else "failed"}
    told = {"shard": f"{number}/3", "seeds": 1, **(options or {})}
    name = f"2026010{number}-000000-1"
    return store_session(
        folder, judged([case], runs, outcomes), runs, name=name, options=told
    ).folder


def merge(folder: Path, *arguments: str | Path) -> int:
    return main(["merge", *map(str, arguments), "--results", str(folder / "merged")])


def test_shards_come_as_folders_as_artefacts_and_in_a_zip_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = store_shard(tmp_path / "one", 1)
    store_shard(tmp_path / "two", 2)
    archive = shutil.make_archive(
        str(tmp_path / "third"), "zip", store_shard(tmp_path / "three", 3).parent
    )
    # a link to one of them names no further one
    (tmp_path / "latest").symlink_to(first)
    assert merge(tmp_path, first, tmp_path / "latest", tmp_path / "two", archive) == 0
    merged = read_session(latest_session(tmp_path / "merged"))
    assert {stored.spec.norm for stored in merged.judged_cases} == {"batch", "layer", "none"}
    assert f"normbench: results in {merged.folder}" in capsys.readouterr().out


def test_a_case_below_its_target_raises_an_alarm(tmp_path: Path) -> None:
    parts = [store_shard(tmp_path, 1), store_shard(tmp_path, 2, 0.85), store_shard(tmp_path, 3)]
    assert merge(tmp_path, *parts) == 1


def write_baseline(folder: Path, *specs: RunSpec) -> str:
    """Write a baseline of three seeds near 95 %; return its path."""
    runs = [finished(spec.with_seed(n), 0.95 + 0.001 * n) for spec in specs for n in range(3)]
    file = folder / "before.json"
    baseline_of(runs).write(file)
    return str(file)


def test_a_strict_session_with_a_case_that_cannot_be_compared_is_no_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"strict": True, "baselines": [write_baseline(tmp_path, *SPECS[:2])]}
    parts = [store_shard(tmp_path, number, options=options) for number in (1, 2, 3)]
    assert merge(tmp_path, *parts) == 3
    assert "normbench: no pass, --bench-strict: " in capsys.readouterr().err


def test_a_shard_that_is_missing_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert merge(tmp_path, store_shard(tmp_path, 2)) == 2
    assert "normbench: the shards 1/3, 3/3 are missing" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
