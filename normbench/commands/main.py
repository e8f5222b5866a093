"""``normbench``: the suite and what one asks of its sessions, a command each."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from normbench import __version__

# Each is a module of this folder with HELP, add_arguments and main.
COMMANDS = (
    "run",
    "new",
    "check",
    "sensitivity",
    "compare",
    "baseline",
    "merge",
    "history",
    "bisect",
    "report",
    "alarm",
    "doctor",
    "schema",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not given:
        parser.print_help()
        return 0
    # its arguments are pytest's, which argparse must not read
    if given[0] == "run":
        return int(_module("run").main(given[1:]))
    options = parser.parse_args(given)
    try:
        code = int(options.main(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # whoever read has read enough; nothing is left to flush at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError) as error:
        print(f"normbench: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="normbench",
        description="Does this norm layer, this regularizer, this torch build still train?",
        epilog="normbench COMMAND --help tells more of a command.",
    )
    parser.add_argument("--version", action="version", version=f"normbench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name in COMMANDS:
        module = _module(name)
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    return parser


def _module(name: str) -> Any:
    return importlib.import_module(f"normbench.commands.{name}")
