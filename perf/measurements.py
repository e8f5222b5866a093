"""Take the long measurements, of which the committed baselines and the pages of results are made.

    python perf/measurements.py baselines|claims|norms [PART ...]

Each part is a session in a folder of its own, ``results/measurements/WHAT/PART``. Stopped, by
Ctrl-C or by whatever, it goes on where it was when it is started again. What has ended is left
alone: to take it anew, as by another recipe, remove its folder. ``make baselines``, ``make claims``
and ``make norms-table`` are the same. A baseline's part writes ``results/reference/NAME.json``
when it has ended.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from norms_page import NORMS, RESULTS

from normbench.storage.session import SessionError, latest_session, read_session

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "results" / "measurements"
# Of a run of pytest whose session has come to its end: no test has failed, or some.
ENDED = (0, 1)


@dataclass(frozen=True)
class Part:
    """What one session runs, as arguments of pytest, and the baseline that becomes of it."""

    name: str
    arguments: str
    baseline: str = ""


ALL_NORMS = " ".join(f"--bench-norm {norm}" for norm in NORMS.values()) + " --bench-norm-only"

MEASUREMENTS = {
    "baselines": (
        Part("digits", "bench/test_digits.py --bench-tier smoke --bench-seeds 60", "digits"),
        Part("mnist", "bench/test_mnist.py -k b64 --bench-seeds 10", "cpu-mnist"),
        Part("cifar10", "bench/test_cifar10.py -k none-b128 --bench-seeds 5", "cpu-cifar10-jpeg"),
        Part(
            "batch-size",
            "bench/test_batch_size.py -k batch_size_mnist --bench-seeds 6",
            "cpu-batch-size",
        ),
        Part(
            "fashion-mnist",
            "bench/test_fashion_mnist.py --bench-tier full --bench-seeds 5",
            "cpu-fashion-mnist",
        ),
    ),
    # each claim says how many seeds it needs
    "claims": (Part("claims", "bench/test_claims.py --bench-tier full"),),
    "norms": tuple(
        Part(dataset, f"bench {command} {ALL_NORMS}") for (dataset, _), command in RESULTS.items()
    ),
}


def status(folder: Path) -> str:
    """Return how the session in a results folder stands; empty where none was begun."""
    try:
        return read_session(latest_session(folder)).document.status
    except (OSError, SessionError):
        return ""


def command(part: Part, folder: Path, workers: int) -> list[str]:
    """Return the command that begins a part's session, or goes on with it."""
    chosen = shlex.split(part.arguments)
    options = ["-n", str(workers), "--bench-results", str(folder), "-p", "no:cacheprovider"]
    resumed = ["--bench-resume"] if status(folder) else []
    return [sys.executable, "-m", "pytest", *chosen, *options, *resumed]


def run_command(arguments: Sequence[str]) -> int:
    return subprocess.run(arguments, cwd=ROOT).returncode


def measure(
    part: Part, stored: Path, workers: int, run: Callable[[Sequence[str]], int] = run_command
) -> bool:
    """Run what is left of a part, and write its baseline; False where it was stopped."""
    folder = stored / part.name
    if status(folder) == "finished":
        print(f"{part.name}: finished, in {folder}", flush=True)
    elif run(command(part, folder, workers)) not in ENDED:
        return False
    if not part.baseline:
        return True
    session = str(latest_session(folder))
    written = ["baseline", part.baseline, session, "--overwrite"]
    return run([sys.executable, "-m", "normbench", *written]) == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=list(MEASUREMENTS))
    parser.add_argument("parts", nargs="*", help="some of its parts; all without any")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stored", type=Path, default=STORED, help="the folder of their sessions")
    options = parser.parse_args()
    known = {part.name: part for part in MEASUREMENTS[options.what]}
    if unknown := [name for name in options.parts if name not in known]:
        parser.error(f"unknown part {unknown[0]!r}: expected some of {', '.join(known)}")
    for name in options.parts or known:
        if not measure(known[name], options.stored / options.what, options.workers):
            print(f"{name} has not come to its end: see above", flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
