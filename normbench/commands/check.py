"""Tell whether a norm layer, a regularizer or a network is what it says it is.

A norm or a network is a known name or package.module:factory, with the current folder to import
from; a norm claims by its factory's attribute normbench_claims. Nothing is trained. Exits with 1
if a property is broken, with 2 if something cannot be checked at all.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

HELP = "tell whether a norm, a regularizer or a network is right"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "norms", metavar="NORM", nargs="*", help="a known name, or package.module:factory"
    )
    command.add_argument(
        "--regularizer",
        metavar="NAME",
        action="append",
        default=[],
        help="a regularizer, such as l1:0.001+l2:0.001 (repeatable)",
    )
    command.add_argument(
        "--network",
        metavar="NAME",
        action="append",
        default=[],
        help="a network: a known name, or package.module:factory (repeatable)",
    )
    command.add_argument(
        "--dataset",
        metavar="NAME",
        help="the data set whose images and classes the networks are built for",
    )
    command.add_argument(
        "--seed",
        metavar="N",
        type=_seed,
        default=0,
        help="what the norms are checked with is drawn by it; default 0",
    )
    command.add_argument(
        "--json", action="store_true", help="print a JSON array in place of the tables"
    )


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 to 2**32 - 1")
    return int(text)


def main(options: argparse.Namespace) -> int:
    sys.path.insert(0, str(Path.cwd()))
    from normbench.check.conformance import check_network, check_norm, check_regularizer
    from normbench.check.properties import Checked
    from normbench.models.families import claims_of
    from normbench.models.networks import find_network
    from normbench.models.norms import norm_factory
    from normbench.models.regularizers import find_regularizers
    from normbench.report.checks import print_checked
    from normbench.spec import regularizer_strengths
    from normbench.training.data import known_dataset
    from normbench.training.datasets import default_root

    checks: list[tuple[Callable[[str], Checked], str]] = [
        *((partial(check_norm, seed=options.seed), name) for name in options.norms),
        *((check_regularizer, name) for name in options.regularizer),
        *((partial(check_network, dataset=options.dataset), name) for name in options.network),
    ]
    if not checks:
        raise ValueError("nothing to check: name a NORM, a --regularizer or a --network")
    # a name that stands for nothing ends it before anything is checked
    for name in options.norms:
        norm_factory(name)
        claims_of(name)
    for name in options.regularizer:
        find_regularizers(regularizer_strengths(name))
    for name in options.network:
        find_network(name)
    if options.dataset is not None:
        known_dataset(options.dataset, default_root())
    found, misfits = [], 0
    for check, name in checks:
        try:
            # what a norm prints is not what the check has found
            with redirect_stdout(sys.stderr):
                checked = check(name)
        except ValueError as error:
            print(f"normbench: {error}", file=sys.stderr)
            misfits += 1
            continue
        found.append(checked)
        if not options.json:
            print_checked(checked)
    if options.json:
        print(json.dumps([checked.to_dict() for checked in found], indent=1))
    return 2 if misfits else int(any(checked.broken for checked in found))
