"""The plugin's options: how they are told of, which go together, and what they come to."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.thresholds import (
    CONFIRMING_SEEDS,
    FEWEST_RUNS,
    INTERIM_RUNS,
    MAX_UNDECIDED,
    MINIMUM_EFFECT,
)
from normbench.cases.case import NO_TARGET, GridOptions
from normbench.engine.options import Options, Share
from normbench.plugin.parsers import (
    parse_baseline,
    parse_baseline_name,
    parse_cases_file,
    parse_count,
    parse_data,
    parse_device_syntax,
    parse_engine,
    parse_folder,
    parse_json_file,
    parse_norm,
    parse_plant,
    parse_points,
    parse_ray_address,
    parse_ray_cpus,
    parse_ray_gpus,
    parse_regularizer,
    parse_replay,
    parse_seconds,
    parse_seeds,
    parse_shard,
    parse_share,
    parse_table,
    parse_target,
    parse_tier,
    parse_timeout,
)
from normbench.training.datasets import ENVIRONMENT_VARIABLE, default_root


def add_options(parser: pytest.Parser) -> None:
    """Add the options to pytest's, each as ``--bench-NAME``."""
    group = parser.getgroup("normbench", "normbench: does it still train?")

    def add(name: str, **attributes: Any) -> None:
        group.addoption(f"--bench-{name}", **attributes)

    add(
        "tier",
        type=parse_tier,
        default="standard",
        metavar="TIER",
        help="smoke: the embedded digits; standard (default): the published grids as well; "
        "full: everything; own: the files of --bench-cases alone, whatever tier they say",
    )
    add(
        "data",
        type=parse_data,
        metavar="DIR",
        help=f"data root; default ${ENVIRONMENT_VARIABLE}, else the platform's cache folder",
    )
    add(
        "device",
        type=parse_device_syntax,
        metavar="DEVICE",
        help="where runs go: auto (default), cpu, cuda, or cuda:0,2",
    )
    add(
        "seeds",
        type=parse_seeds,
        # parsed already: --help ends the parsing before a default given as text would be
        default=range(1),
        metavar="N|A:B|auto",
        help="independent runs of each case; the target is held against their mean (default 1); "
        "A:B: those of the seeds from A up to B; "
        f"auto: up to {INTERIM_RUNS[-1]}, while a case is undecided beside its target and baseline",
    )
    add(
        "baseline",
        type=parse_baseline,
        action="append",
        default=[],
        metavar="NAME|FILE",
        help="fail where a case is worse than in this baseline: a name in results/reference or in "
        "the package, a file, or a session's folder; repeatable: of a case that several have, the "
        "first one counts",
    )
    add(
        "confirm",
        type=parse_count,
        metavar="N",
        help="how many further seeds of a case that looks worse than the baseline are trained "
        f"before it is called a regression (default {CONFIRMING_SEEDS}); 0 trains none, and such a "
        f"case stays suspected. A regression takes {FEWEST_RUNS} runs in all",
    )
    add(
        "strict",
        action="store_true",
        help="fail as well where a case was skipped, cannot be compared, or is not in the "
        "baseline, and where too many are undecided",
    )
    add(
        "max-undecided",
        type=parse_share,
        metavar="PERCENT",
        help="of the compared cases, how many may be undecided or suspected under --bench-strict "
        f"(default {100 * MAX_UNDECIDED:g})",
    )
    add(
        "selection-size",
        type=parse_count,
        metavar="N",
        help="where this session runs a part of a selection: how many cases the whole has, which "
        "share the 1 %% of false alarms",
    )
    add(
        "shard",
        type=parse_shard,
        metavar="K/N",
        help="run the K-th of N parts of the tests that are selected, which take about as long "
        "each, and are the same on every machine; `normbench merge` makes one session of the parts",
    )
    add(
        "save-baseline",
        type=parse_baseline_name,
        metavar="NAME",
        help="store this session's runs as results/reference/NAME.json",
    )
    add(
        "overwrite",
        action="store_true",
        help="let --bench-save-baseline replace a baseline that is there",
    )
    add(
        "minimum-effect",
        type=parse_points,
        metavar="POINTS",
        help="how many percentage points a mean must differ from the baseline's to matter "
        "(default: "
        + ", ".join(f"{100 * effect:g} on {name}" for name, effect in MINIMUM_EFFECT.items())
        + "; on others 50 / sqrt(test images), such as 0.5 on 10,000)",
    )
    add(
        "resume",
        action="store_true",
        help="finish the last interrupted session: stored rows are reused, half-done runs go on "
        "from their last epoch",
    )
    add(
        "norm",
        type=parse_norm,
        action="append",
        default=[],
        metavar="NORM",
        help="add a norm to every grid: a known name or package.module:factory; repeatable",
    )
    add(
        "norm-only",
        action="store_true",
        help="leave out the grids' own norms: run those of --bench-norm alone",
    )
    add(
        "regularizer",
        type=parse_regularizer,
        action="append",
        default=[],
        metavar="REGULARIZER",
        help="add a regularizer to every grid, by its parts and their strengths, such as "
        "l1:0.001+l2:0.001 or package.module:factory:0.01; repeatable",
    )
    add(
        "target",
        type=parse_target,
        metavar="PERCENT",
        help="the test accuracy that cases must exceed of which no cases file says one, such as "
        "those of --bench-norm; without it they are measured, and neither pass nor fail",
    )
    add(
        "cases",
        type=parse_cases_file,
        action="append",
        default=[],
        metavar="FILE",
        help="run the grid, or judge the claims, of this file too; with `normbench run` and no "
        "tier, it is run alone; repeatable",
    )
    add(
        "results",
        type=parse_folder,
        metavar="DIR",
        help="where sessions are stored (default: results in pytest's root folder)",
    )
    add(
        "replay",
        type=parse_replay,
        metavar="same|trace",
        help="take the rows of an earlier session for cases that would come out the same: machine, "
        "torch build, threads, code, network and recipe are equal, and so is a short trace of the "
        "case, to the bit; such a case is unchanged. trace: also where the torch build is another, "
        "and the trace equal all the same",
    )
    add(
        "replay-audit",
        type=parse_seconds,
        metavar="SECONDS",
        help="train some of the cases whose rows could be taken all the same, drawn anew in each "
        "session, for so many seconds in all; they fail if they do not come out equal",
    )
    add(
        "table",
        type=parse_table,
        metavar="auto|all|short|none",
        help="what the terminal shows at the end: all cases; short: the counts, what needs a look, "
        "and the accuracies as norm x regularizer; none: no cases; auto (default): all of up to 80 "
        "cases, else short. The session's folder has them all",
    )
    add(
        "json",
        type=parse_json_file,
        action="append",
        default=[],
        metavar="[FORMAT:]FILE",
        help="when the session ends, write it to this file as one JSON document; after "
        "github-accuracy: or github-seconds:, as entries of github-action-benchmark; repeatable",
    )
    add(
        "stall-timeout",
        type=parse_timeout,
        metavar="SECONDS",
        help="end a run that makes no progress for so long, with a dump of its stacks; 0 never "
        "does (default: 20 times the run's first epoch, and at least a minute; until that has "
        "ended, ten minutes or more)",
    )
    add(
        "engine",
        type=parse_engine,
        metavar="xdist|ray",
        help="who trains: this process, or xdist's workers with -n (default: xdist); or the nodes "
        "of a cluster of Ray, for which this process hands out the runs and waits",
    )
    add(
        "ray-address",
        type=parse_ray_address,
        metavar="auto|local|HOST:PORT",
        help="the cluster that --bench-engine ray joins: auto, which runs on this machine; local, "
        "a new one of this machine alone; or HOST:PORT (default: $RAY_ADDRESS, else auto where "
        "there is one, else local)",
    )
    add(
        "ray-cpus",
        type=parse_ray_cpus,
        metavar="CORES",
        help="how many cores, and threads, each run gets of Ray's cluster (default: 1)",
    )
    add(
        "ray-gpus",
        type=parse_ray_gpus,
        metavar="SHARE",
        help="which part of a GPU each run gets of Ray's cluster, such as 0.25 (default: 0, runs "
        "are trained on cores)",
    )
    add(
        "plant",
        type=parse_plant,
        metavar="FAULT",
        help="break one thing on purpose while the tests run, to see whether they find it: a name "
        "that `normbench sensitivity --list` lists; the session is no baseline, stands in no "
        "history, and cannot be resumed",
    )


def require_consistent(config: pytest.Config) -> None:
    """Raise pytest.UsageError where options clash."""
    if config.getoption("--bench-norm-only") and not config.getoption("--bench-norm"):
        raise pytest.UsageError("--bench-norm-only needs at least one --bench-norm")
    _require_no_use_of_broken_code(config)
    _require_new_baseline(config)
    _require_whole(config)
    sequential = config.getoption("--bench-seeds") is None
    _require_rows_to_replay(config, sequential)
    _require_one_engine(config)
    if config.getoption("--bench-max-undecided") is not None and not config.getoption(
        "--bench-strict"
    ):
        raise pytest.UsageError("--bench-max-undecided needs --bench-strict, which it is a part of")
    if config.getoption("--bench-baseline"):
        return
    if sequential:
        raise pytest.UsageError(
            "--bench-seeds auto needs --bench-baseline: the spread of its seeds tells how many "
            "runs decide a case"
        )
    for option in ("minimum-effect", "confirm", "max-undecided", "selection-size"):
        if config.getoption(f"--bench-{option}") is not None:
            raise pytest.UsageError(f"--bench-{option} needs --bench-baseline to compare with")


def _require_one_engine(config: pytest.Config) -> None:
    """Raise pytest.UsageError for what clashes with --bench-engine ray, or needs it."""
    if config.getoption("--bench-engine") != "ray":
        for option in ("address", "cpus", "gpus"):
            if config.getoption(f"--bench-ray-{option}") is not None:
                raise pytest.UsageError(f"--bench-ray-{option} needs --bench-engine ray")
        return
    if find_spec("ray") is None:
        raise pytest.UsageError(
            "--bench-engine ray: expected Ray, which is not installed: install it with "
            "pip install 'normbench[ray]', or leave the option out"
        )
    if config.getoption("dist", "no") != "no":
        raise pytest.UsageError(
            "--bench-engine ray: Ray deals out the runs, and not xdist; expected one of the two: "
            "leave out -n, or the engine"
        )
    if config.getoption("--bench-device") not in (None, "auto"):
        raise pytest.UsageError(
            "--bench-engine ray: the devices are those of the cluster; expected no --bench-device: "
            "say by --bench-ray-gpus which part of a GPU a run gets"
        )
    for option, why in (
        ("replay", "rows are taken by traces of the machine that trains"),
        ("plant", "faults are planted in this process"),
    ):
        if config.getoption(f"--bench-{option}") is not None:
            raise pytest.UsageError(
                f"--bench-{option}: {why}, and --bench-engine ray trains on others; expected one "
                "of the two options alone: leave the other one out"
            )


def _require_no_use_of_broken_code(config: pytest.Config) -> None:
    """Raise pytest.UsageError where runs with a planted fault would be taken for sound."""
    if (fault := config.getoption("--bench-plant")) is None:
        return
    if config.getoption("--bench-save-baseline") is not None:
        raise pytest.UsageError(
            f"--bench-save-baseline: with --bench-plant {fault} the runs are of broken code, and "
            "no baseline; expected one of the two options alone: leave the other one out"
        )
    if config.getoption("--bench-resume"):
        raise pytest.UsageError(
            f"--bench-resume: with --bench-plant {fault} the runs are of broken code, and cannot "
            "stand beside those of an earlier session; expected one of the two options alone: "
            "leave the other one out"
        )
    if config.getoption("--bench-replay") is not None:
        raise pytest.UsageError(
            f"--bench-replay: with --bench-plant {fault} rows of sound code would stand for broken "
            "one; expected one of the two options alone: leave the other one out"
        )


def _require_whole(config: pytest.Config) -> None:
    """Raise pytest.UsageError where a shard is asked for what takes the whole."""
    if (shard := config.getoption("--bench-shard")) is None:
        return
    if config.getoption("--bench-save-baseline") is not None:
        raise pytest.UsageError(
            f"--bench-save-baseline: the shard {shard} has a part of the cases alone; expected a "
            "whole session: run `normbench merge` on all shards, and `normbench baseline` on that"
        )
    if config.getoption("--bench-selection-size") is not None:
        raise pytest.UsageError(
            f"--bench-selection-size: the shard {shard} knows how many cases the whole has; leave "
            "the option out"
        )


def _require_rows_to_replay(config: pytest.Config, sequential: bool) -> None:
    """Raise pytest.UsageError where no rows could be taken, or an audit has none to go by."""
    if config.getoption("--bench-replay") is None:
        if config.getoption("--bench-replay-audit") is not None:
            raise pytest.UsageError("--bench-replay-audit needs --bench-replay, to look after it")
        return
    if sequential:
        raise pytest.UsageError(
            "--bench-replay: with --bench-seeds auto, how many rows a case has is not known before "
            "it is trained; expected a number of seeds"
        )
    if (name := config.getoption("--bench-save-baseline")) is not None:
        raise pytest.UsageError(
            f"--bench-replay: rows that are taken enter no baseline, and {name} would lack them; "
            "expected one of the two options alone: leave the other one out"
        )


def _require_new_baseline(config: pytest.Config) -> None:
    # workers come up as long as the session runs, and another one may have written it by then
    if hasattr(config, "workerinput"):
        return
    name, replaced = map(config.getoption, ("--bench-save-baseline", "--bench-overwrite"))
    if name is None:
        if replaced:
            raise pytest.UsageError("--bench-overwrite needs --bench-save-baseline to replace")
        return
    from normbench.storage.baseline import BaselineError, new_baseline

    try:
        new_baseline(name, _reference(config), None if replaced else "--bench-overwrite")
    except BaselineError as error:
        raise pytest.UsageError(f"--bench-save-baseline: {error}") from error


def _reference(config: pytest.Config) -> Path:
    return config.rootpath / "results" / "reference"


def options_of(config: pytest.Config) -> Options:
    """Return the options of a pytest configuration, which are known to be consistent."""
    norms = tuple(config.getoption("--bench-norm"))
    norms_only = bool(config.getoption("--bench-norm-only"))
    seeds: range | None = config.getoption("--bench-seeds")
    baselines: list[str] = config.getoption("--bench-baseline")
    confirm: int | None = config.getoption("--bench-confirm")
    max_undecided: float | None = config.getoption("--bench-max-undecided")
    minimum_effect: float | None = config.getoption("--bench-minimum-effect")
    target: float | None = config.getoption("--bench-target")
    here = config.invocation_params.dir
    told = getattr(config, "workerinput", {}).get("normbench", {})
    data = config.getoption("--bench-data")
    results = config.getoption("--bench-results")
    return Options(
        grid=GridOptions(
            tier=config.getoption("--bench-tier"),
            seeds=INTERIM_RUNS[-1] if seeds is None else len(seeds),
            first_seed=0 if seeds is None else seeds.start,
            sequential=seeds is None,
            norms=norms,
            norms_only=norms_only,
            regularizers=tuple(config.getoption("--bench-regularizer")),
            target=NO_TARGET if target is None else target,
            data=here / data if data else default_root().absolute(),
        ),
        device=config.getoption("--bench-device") or "auto",
        cases=tuple(here / file for file in config.getoption("--bench-cases")),
        # where pytest is run in a folder such as bench, sessions still go to one place
        results=here / results if results else config.rootpath / "results",
        reference=_reference(config),
        # a worker may come up when the session has begun, and is told by its controller
        baselines=tuple(told.get("baselines") or (_path_or_name(text, here) for text in baselines)),
        save_baseline=config.getoption("--bench-save-baseline"),
        minimum_effect=minimum_effect,
        confirm=CONFIRMING_SEEDS if confirm is None else confirm,
        shard=config.getoption("--bench-shard"),
        selection_size=config.getoption("--bench-selection-size") or 0,
        strict=config.getoption("--bench-strict"),
        max_undecided=MAX_UNDECIDED if max_undecided is None else max_undecided,
        resume=config.getoption("--bench-resume"),
        replay=config.getoption("--bench-replay"),
        replay_audit=config.getoption("--bench-replay-audit") or 0.0,
        stall_timeout=config.getoption("--bench-stall-timeout"),
        plant=config.getoption("--bench-plant"),
        engine=config.getoption("--bench-engine") or "xdist",
        ray_address=config.getoption("--bench-ray-address"),
        share=Share(
            cpus=config.getoption("--bench-ray-cpus") or 1,
            gpus=config.getoption("--bench-ray-gpus") or 0.0,
        ),
    )


def _path_or_name(text: str, here: Path) -> str:
    """Return a baseline's path as an absolute one; a name stays as it is.

    ``results/latest`` is what it leads to now: once the session has begun, it leads there.
    """
    path = (here / text).expanduser()
    return str(path.resolve()) if text and path.exists() else text
