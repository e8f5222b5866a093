"""What options are spelled as: a parser each, which tells argparse what was expected."""

import argparse
import re
from collections.abc import Collection
from pathlib import Path

from normbench.cases.case import OWN, TIERS
from normbench.engine.options import ENGINES
from normbench.engine.shards import Shard

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


def _one_of(text: str, allowed: Collection[str], between: str) -> str:
    if text not in allowed:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {between.join(allowed)}")
    return text


def parse_replay(text: str) -> str:
    from normbench.engine.replay import GROUNDS

    return _one_of(text, GROUNDS, " or ")


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


def parse_engine(text: str) -> str:
    return _one_of(text, ENGINES, " or ")


def parse_ray_address(text: str) -> str:
    if text not in ("auto", "local") and not re.fullmatch(
        r"(\[[0-9A-Fa-f:]+\]|[\w.-]+):[0-9]{1,5}", text
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r:.60}: expected auto, for a cluster that runs on this machine, local, for a "
            "new one of this machine alone, or HOST:PORT, as `ray start` tells it"
        )
    return text


def parse_ray_cpus(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r:.60}: expected a number of cores, such as 2")
    return int(text)


def parse_ray_gpus(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    # Ray counts in ten-thousandths
    if not 0.0001 <= share <= 1:
        raise argparse.ArgumentTypeError(
            f"{text!r:.60}: expected a part of a GPU, such as 0.25, or 1 for a whole one"
        )
    return share


def parse_table(text: str) -> str:
    from normbench.report.terminal import TABLES

    return _one_of(text, TABLES, ", ")


def parse_plant(text: str) -> str:
    from normbench.check.faults import find_fault

    try:
        return find_fault(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
