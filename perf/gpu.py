"""Take all measurements on a GPU in one go, within nine minutes, on a machine that is bare.

    python perf/gpu.py --data DIR --output DIR

Needs Python 3.11, torch, torchvision, NumPy and a GPU, and no network: MNIST lies in DIR/MNIST/raw,
as it was published, unpacked. What else normbench needs comes along as wheels. Where there is a
network (X.Y is the other machine's Python):

    pip download --no-deps --only-binary=:all: --python-version X.Y \\
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d wheels \\
        pydantic==VERSION pydantic-core==ITS annotated-types typing-inspection platformdirs
    gzip -k MNIST/raw/*-ubyte

and where there is none:

    pip install --no-index --no-deps --target site wheels/*.whl
    gunzip MNIST/raw/*.gz
    PYTHONPATH=site python perf/gpu.py --data . --output measured

Stages run one after the other, each in a process of its own: a hang or a crash costs one stage.
What does not fit in --limit is left out. After each stage, what was measured until then is in the
output folder: gpu.json has all of it, speed-gpu.md the tables, stages.tar.gz the logs and the rows
of the runs. `--device cpu --quick` shows that the program runs, and measures nothing.
"""

import argparse
import importlib
import os
import signal
import sys
import tarfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from gpu_runner import Outcome, Stage, as_json, run_stages, write_whole
from gpu_tables import document

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 540.0


class Part(NamedTuple):
    """A stage's function, the most seconds that it may take, and the fewest worth a start."""

    module: str
    seconds: float
    least: float


# The most worth knowing first; the grid takes what is left.
PARTS = {
    "facts": Part("gpu_training", 75, 5),
    "run": Part("gpu_training", 110, 15),
    "tests": Part("gpu_tests", 80, 15),
    "check": Part("gpu_tests", 75, 15),
    "trace": Part("gpu_tests", 60, 15),
    "accuracy": Part("gpu_grid", 120, 30),
    "profile": Part("gpu_profile", 50, 15),
    "grid": Part("gpu_grid", 300, 30),
}


def stages(options: argparse.Namespace) -> list[Stage]:
    """Return the chosen stages, each as this program with --stage."""
    chosen = []
    for name in options.only or PARTS:
        command = [sys.executable, str(Path(__file__).resolve()), "--stage", name]
        command += ["--data", str(options.data), "--work", str(options.work)]
        command += ["--device", options.device, "--limit", "{seconds}"]
        command += ["--quick"] if options.quick else []
        part = PARTS[name]
        without = ""
        if name == "trace" and not (ROOT / "bench" / "test_trace.py").exists():
            without = "there is no bench/test_trace.py here"
        chosen.append(Stage(name, command, part.seconds, part.least, without))
    return chosen


def run_here(options: argparse.Namespace) -> None:
    """Run one stage in this process; what it tells goes to its result file as soon as it does."""

    def end(number: int, _: FrameType | None) -> None:
        # so that what must not be left behind is put away
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    module = importlib.import_module(PARTS[options.stage].module)
    setup = importlib.import_module("gpu_training").Setup(
        options.device, options.data, options.work, options.limit, options.quick
    )
    file = options.work / f"{options.stage}.json"

    def tell(result: dict[str, Any]) -> None:
        write_whole(file, as_json([], **result))

    getattr(module, options.stage)(setup, tell)


def write_all(outcomes: Sequence[Outcome], options: argparse.Namespace, started: str) -> None:
    """Write what was measured so far: all of it as JSON, the tables, and the logs with the rows."""
    seconds = time.monotonic() - options.begun
    text = as_json(outcomes, started=started, device=options.device, seconds=round(seconds, 1))
    write_whole(options.output / "gpu.json", text)
    write_whole(options.output / "speed-gpu.md", document(outcomes, started, options.quick))
    packed = options.output / ".stages.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        for file in sorted(options.work.rglob("*")):
            if file.suffix in (".json", ".jsonl", ".log", ".toml", ".xml") and file.is_file():
                archive.add(file, f"stages/{file.relative_to(options.work)}")
    packed.replace(options.output / "stages.tar.gz")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    data = os.environ.get("NORMBENCH_DATA", ".")
    parser.add_argument("--data", type=Path, default=Path(data), help="the data root")
    parser.add_argument("--output", type=Path, default=Path("results/perf"))
    parser.add_argument("--work", type=Path, help="where stages write; default OUTPUT/stages")
    parser.add_argument("--device", default="cuda:0", help="cuda:0 (default), another GPU, or cpu")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds in all (default 540)")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="STAGE", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few images: shows that it runs")
    parser.add_argument("--stage", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.begun = time.monotonic()
    options.work = (options.work or options.output / "stages").absolute()
    options.data = options.data.expanduser().absolute()
    if options.stage is None and not (options.data / "MNIST" / "raw").is_dir():
        parser.error(f"{options.data}/MNIST/raw is not there: name the data root with --data")
    return options


def main() -> None:
    options = parsed()
    if options.stage is not None:
        run_here(options)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC).isoformat(timespec="seconds")

    def on_end(outcomes: Sequence[Outcome]) -> None:
        print(outcomes[-1].line(), flush=True)
        write_all(outcomes, options, started)

    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    # one thread for each process, as a worker that has one core
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    # the profiler: CUPTI that comes and goes may crash where a graph is replayed
    environment |= {"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"}
    run_stages(stages(options), options.work, options.limit, on_end, environment)
    print(f"\n{(options.output / 'speed-gpu.md').read_text()}", flush=True)


if __name__ == "__main__":
    main()
