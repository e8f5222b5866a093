"""The plugin's options: one parser each, and what they come to."""

import argparse
import re
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
from normbench.cases.case import NO_TARGET, OWN, TIERS, GridOptions
from normbench.engine.options import Options
from normbench.engine.shards import Shard
from normbench.training.datasets import ENVIRONMENT_VARIABLE, default_root

# Of one case: more are sure to be a slip of the hand.
MOST_RUNS = 10_000
# torch takes seeds of 64 bits, tables those of 63.
SEEDS_END = 2**63


def parse_tier(text: str) -> str:
    if text not in (*TIERS, OWN):
        expected = ", ".join((*TIERS, OWN))
        raise argparse.ArgumentTypeError(f"{text!r} is no tier: expected {expected}")
    return text


def parse_seeds(text: str) -> range | None:
    """Return the seeds of a case's runs: ``5`` is 0 to 4, ``5:8`` 5 to 7; None for ``auto``."""
    if text == "auto":
        return None
    if match := re.fullmatch(r"(?:([0-9]{1,20}):)?([0-9]{1,20})", text):
        first, end = int(match[1] or 0), int(match[2])
        if 1 <= end - first <= MOST_RUNS and end <= SEEDS_END:
            return range(first, end)
    raise argparse.ArgumentTypeError(
        f"{text!r:.60}: expected a whole number of runs, at least 1 and at most {MOST_RUNS}, seeds "
        "such as 5:10 for 5 to 9, all below 2**63, or auto"
    )


def parse_points(text: str) -> float:
    """Return a difference of accuracies as a fraction, of percentage points."""
    return _fraction(text, "percentage points between 0 and 100, such as 0.1")


def parse_share(text: str) -> float:
    """Return a share of cases as a fraction, of percent."""
    return _fraction(text, "a percentage between 0 and 100, such as 25")


def _fraction(text: str, expected: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
    return percent / 100


def parse_count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 0 or larger")
    return int(text)


def parse_baseline_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a name of letters, digits, dots, dashes and underscores"
        )
    return text


def parse_baseline(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a baseline's name or file, or a session's folder; leave the "
            "option out to compare with nothing"
        )
    return text


def parse_norm(text: str) -> str:
    from normbench.models.norms import norm_factory

    try:
        norm_factory(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def parse_regularizer(text: str) -> str:
    from normbench.models.regularizers import find_regularizers
    from normbench.spec import regularizer_name, regularizer_strengths

    try:
        strengths = regularizer_strengths(text)
        find_regularizers(strengths)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return regularizer_name(strengths)


def parse_target(text: str) -> float:
    """Return a target as a fraction, of percent."""
    return _fraction(text, "an accuracy in percent between 0 and 100, such as 98.5")


def parse_device_syntax(text: str) -> str:
    """Check the spelling; whether the GPU is there is asked when the session starts."""
    from normbench.engine.devices import parse_device

    try:
        parse_device(text, cuda_devices=1024)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def parse_cases_file(text: str) -> str:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no file: expected a cases file in TOML, as those in bench/cases"
        )
    return text


def parse_folder(text: str) -> str:
    path = Path(text).expanduser()
    if not text or (path.exists() and not path.is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder: expected a folder's path")
    return str(path)


def parse_data(text: str) -> str:
    """Return a folder that may be made for what is downloaded, but not the folders around it."""
    folder = parse_folder(text)
    if not Path(folder).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} is in no folder that exists: expected the folder of the data sets, or one "
            "to download them to; make the folder that it is to be in first"
        )
    return folder


def parse_replay(text: str) -> str:
    from normbench.engine.replay import GROUNDS

    if text not in GROUNDS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {' or '.join(GROUNDS)}")
    return text


def parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds above 0")
    return seconds


def parse_timeout(text: str) -> float:
    return 0.0 if text == "0" else parse_seconds(text)


def parse_json_format(text: str) -> str:
    from normbench.report.exports import SESSION_FORMATS

    if text not in SESSION_FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no format: expected {', '.join(SESSION_FORMATS)}"
        )
    return text


def parse_json_file(text: str) -> tuple[str, str]:
    """Return a format and a file, of ``FORMAT:FILE`` or of a file alone."""
    given, colon, file = text.partition(":")
    # a drive is one letter, and a path with a colon may begin with ./
    if colon and given.isascii() and len(given) > 1 and not {"/", "\\", "."} & set(given):
        kind = parse_json_format(given)
    else:
        kind, file = "normbench", text
    path = Path(file).expanduser()
    # what is there is replaced as a whole, which a device or a pipe must not be
    in_the_way = path.exists() and not path.is_file()
    if not file or in_the_way or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no file that can be written: expected a file's path in a folder that "
            "exists, alone or after a format, as in github-accuracy:accuracy.json"
        )
    return kind, str(path)


def parse_shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_table(text: str) -> str:
    from normbench.report.terminal import TABLES

    if text not in TABLES:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {', '.join(TABLES)}")
    return text


def parse_plant(text: str) -> str:
    from normbench.check.faults import find_fault

    try:
        return find_fault(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_options(parser: pytest.Parser) -> None:
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
    )


def _path_or_name(text: str, here: Path) -> str:
    """Return a baseline's path as an absolute one; a name stays as it is.

    ``results/latest`` is what it leads to now: once the session has begun, it leads there.
    """
    path = (here / text).expanduser()
    return str(path.resolve()) if text and path.exists() else text
