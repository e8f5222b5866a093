"""Kill sessions at random moments, resume them, and see whether anything is lost.

A session that was killed is resumed, and that one may be killed as well, until one comes to an end.

``make torture KILLS=50`` kills as often, adds the counts to results/torture.json, and writes them
into docs/reliability.md. It may be stopped at any time: each kill is counted once its session has
been looked at. Needs Linux, and for a disk that is full or read-only the right to mount one.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from normbench.results import RunResult
from normbench.storage.runs import RunStore
from normbench.storage.session import latest_session, read_session

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "results" / "torture.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- written by make torture -->", "<!-- end of what make torture writes -->"

# Batch, layer, and group normalization in two and four groups, with three regularizers each.
CASES = "b64 and not l2 and not layer_chw and (batch or layer or group)"
NUMBER_OF_CASES = 12
RESUMED_AT_MOST = 10
COMMAND = (
    *(sys.executable, "-m", "pytest", "bench/test_digits.py", "--bench-tier", "smoke", "-k", CASES),
    *("-n", "2", "-q", "-p", "no:cacheprovider", "-p", "tests.torture_point"),
)
# Which process is killed, and where a moment is not drawn from the clock, what it was about to do.
KINDS = {
    "group": "all processes at once",
    "controller": "the controller",
    "worker": "a worker",
    "rename": "whoever has written a file, before it gets its name",
    "row": "a worker, with half of a row written",
}
DISKS = {"full": "a disk that fills up", "read-only": "a folder that turns read-only"}
CHECKED = {
    "lost": "rows lost",
    "different": "rows that differ from an undisturbed session's",
    "unreadable": "files that cannot be read",
    "left": "temporary files left behind",
    "not_resumed": "sessions that could not be resumed",
}


@dataclass
class Torture:
    """A folder in which sessions are killed, and the rows that each of them has to come to.

    Kills of one ``kind``, or where there is none, of kinds that are drawn.
    """

    folder: Path
    drawn: random.Random
    kind: str | None = None
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0

    def start(self, results: Path, *more: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, "--bench-results", str(results), *more],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, results: Path, *more: str) -> tuple[int, str]:
        process = self.start(results, *more)
        output, _ = process.communicate()
        return process.returncode, output

    def undisturbed(self) -> None:
        """Run a session that nobody disturbs, for its rows and for how long it takes."""
        results = self.folder / "undisturbed"
        process = self.start(results)
        wait_for(lambda: (results / "latest").exists(), process)
        begun = time.monotonic()
        output, _ = process.communicate()
        self.seconds = time.monotonic() - begun
        rows = rows_of(results)
        if process.returncode or len(rows) != NUMBER_OF_CASES:
            raise SystemExit(f"the undisturbed session has {len(rows)} rows:\n{output[-3000:]}")
        self.expected = {key: run.decided for key, run in rows.items()}

    def kill(self, kind: str, results: Path, *more: str) -> tuple[bool, str]:
        """Run a session and kill something of it; return whether it was in time, and what it said.

        Where the session has not died of it, it has ended when this returns.
        """
        died = results / "died"
        died.unlink(missing_ok=True)
        environment = {}
        if kind in ("rename", "row"):
            at = self.drawn.randint(1, 30 if kind == "rename" else 5)
            environment = {"NORMBENCH_TORTURE": f"{kind} {at} {died}"}
        process = self.start(results, *more, **environment)
        if not environment:
            before = time.time()
            wait_for(lambda: _is_open(results, before), process)
            # A half, so that a session is killed several times before it has trained everything.
            time.sleep(self.drawn.uniform(0, self.seconds / 2))
            self._kill_now(kind, process, died)
        output, _ = process.communicate()
        return died.exists(), output

    def _kill_now(self, kind: str, process: "subprocess.Popen[str]", died: Path) -> None:
        if process.poll() is not None:
            return
        victim = process.pid
        if kind == "worker":
            workers = children(process.pid)
            if not workers:
                return
            victim = self.drawn.choice(workers)
        died.touch()
        with suppress(ProcessLookupError):
            (os.killpg if kind == "group" else os.kill)(victim, signal.SIGKILL)

    def tortured(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Kill a session, and then those that resume it, until one ends; count after each kill.

        What is wrong with the session once it has ended is counted with the last kill.
        """
        results = self.folder / f"{self.drawn.getrandbits(40):x}"
        results.mkdir()
        before: dict[str, RunResult] = {}
        for resumed in range(RESUMED_AT_MOST + 1):
            kind = self.kind or self.drawn.choice(list(KINDS))
            # one that was killed before it had a row is resumed as well
            more = ("--bench-resume",) if (results / "latest").exists() else ()
            in_time, output = self.kill(kind, results, *more)
            counts = Counter({"kills": int(in_time)})
            if not (results / "latest").exists():  # it was killed before there was a session
                yield kind, dict(counts + Counter({"before_the_session": 1}))
                continue
            after = rows_of(results)
            ended = status_of(results) == "finished"
            if not ended and (not in_time or resumed == RESUMED_AT_MOST):
                code, output = self.finish(results, "--bench-resume")
                counts["resumed"] = 1
                counts["not_resumed"] = int(status_of(results) != "finished" or code not in (0, 1))
                ended = True
            if ended:
                counts.update(self.wrong(results, before))
            else:
                counts.update(resumed=1, lost=len(changed(before, after)))
            # a resumed session trains again what had crashed in the one before
            counts["crashed"] = len(crashed(rows_of(results)))
            if any(counts[name] for name in CHECKED):
                print(f"{kind}: {dict(counts)} in {results}\n{output[-3000:]}", file=sys.stderr)
            yield kind, dict(counts)
            if ended:
                return
            before = after

    def wrong(self, results: Path, before: Mapping[str, RunResult]) -> dict[str, int]:
        """Count what is wrong with a session that has ended; ``before`` are rows that it had."""
        after = rows_of(results)
        different = [
            key
            for key, run in after.items()
            if key not in crashed(after) and run.decided != self.expected[key]
        ]
        files = [file for file in latest_session(results).rglob("*") if file.is_file()]
        return {
            "lost": len((self.expected.keys() - after.keys()) | changed(before, after)),
            "different": len(different),
            "unreadable": sum(not _is_readable(file) for file in files),
            "left": sum(file.name.startswith(".") or file.suffix == ".lock" for file in files),
        }

    def full(self) -> dict[str, int]:
        """Fill a session's disk; then free it, and resume the session."""
        disk = self.folder / "full"
        disk.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk))
        ballast = disk / "ballast"
        try:
            return self._hindered(disk / "results", lambda: fill(ballast), ballast.unlink)
        finally:
            run("umount", "--lazy", str(disk))

    def read_only(self) -> dict[str, int]:
        """Let nobody write to a session's folder; then let everybody, and resume the session.

        No mount can be made read-only while locks are held on it, and root may write anywhere else.
        """
        results = self.folder / "read-only"
        try:
            return self._hindered(
                results,
                lambda: run("chattr", "-R", "-f", "+i", str(results / "runs")),
                lambda: run("chattr", "-R", "-f", "-i", str(results / "runs")),
            )
        finally:
            run("chattr", "-R", "-f", "-i", str(results / "runs"))

    def _hindered(
        self, results: Path, hinder: Callable[[], object], let: Callable[[], object]
    ) -> dict[str, int]:
        """Hinder a session that has a few rows; count what is wrong once it was let go on."""
        process = self.start(results)
        wait_for(lambda: (results / "latest").exists() and len(rows_of(results)) >= 3, process)
        hinder()
        output, _ = process.communicate()
        # each worker tells of the run that it was at
        clear = "go on with --bench-resume" in output and "Traceback" not in output
        let()
        before = rows_of(results)
        code, more = self.finish(results, "--bench-resume")
        counts = self.wrong(results, before)
        counts |= {"not_resumed": int(code != 0), "not_clear": int(not clear)}
        if any(counts.values()):
            print(f"{counts}\n{output[-5000:]}\n{more[-2000:]}", file=sys.stderr)
        return counts


def crashed(rows: Mapping[str, RunResult]) -> set[str]:
    return {key for key, run in rows.items() if run.status == "crashed"}


def changed(before: Mapping[str, RunResult], after: Mapping[str, RunResult]) -> set[str]:
    """Return the finished rows that are gone, or are not what they were."""
    return {key for key, run in before.items() if run.status == "ok" and after.get(key) != run}


def run(*command: str) -> None:
    """Run a command; where it fails, as a file has gone meanwhile, what follows will tell."""
    subprocess.run(command, check=False)


def fill(file: Path) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def wait_for(met: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait until it is so, or the process has ended."""
    while process.poll() is None and not met():
        time.sleep(0.02)


def children(process: int) -> list[int]:
    """Return the processes that a process has started: of a controller, its workers."""
    found = [file.read_text() for file in Path(f"/proc/{process}/task").glob("*/children")]
    return [int(number) for text in found for number in text.split()]


def _is_open(results: Path, since: float) -> bool:
    """Whether a session was opened, or opened again, since then."""
    with suppress(OSError):
        return (latest_session(results) / "session.json").stat().st_mtime >= since
    return False


def rows_of(results: Path) -> dict[str, RunResult]:
    return RunStore(latest_session(results)).results()


def status_of(results: Path) -> str:
    return read_session(latest_session(results)).document.status


def _is_readable(file: Path) -> bool:
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".jsonl":
            text = file.read_text(encoding="utf-8")
            return text.endswith("\n") and all(map(json.loads, text.splitlines()))
    except ValueError:
        return False
    return True


def stored_calls() -> list[dict[str, Any]]:
    """Return the counts of each call so far, of each kind of kill and of disk."""
    if not STORED.exists():
        return []
    calls: list[dict[str, Any]] = json.loads(STORED.read_text(encoding="utf-8"))["calls"]
    return calls


def add(call: dict[str, Any]) -> None:
    """Store a call's counts in place of those that it has had so far."""
    calls = [*(other for other in stored_calls() if other["begun"] != call["begun"]), call]
    STORED.parent.mkdir(exist_ok=True)
    STORED.write_text(json.dumps({"calls": calls}, indent=1) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{section(calls)}\n\n{END}{after}", encoding="utf-8")


def section(calls: list[dict[str, Any]]) -> str:
    """Return a table of what was killed, and what came of it, over all calls."""
    names = ("kills", "resumed", "crashed", *CHECKED)
    totals = {kind: Counter[str]() for kind in KINDS}
    for call in calls:
        for kind, counts in call["counts"].items():
            totals.setdefault(kind, Counter()).update(counts)
    kinds = {kind: KINDS[kind] for kind in KINDS if totals[kind]}
    heads = ("killed", "kills", "resumed", "cases that crashed", *CHECKED.values())
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for kind, told in kinds.items():
        cells = [told, *(str(totals[kind][name]) for name in names)]
        lines.append(f"| {' | '.join(cells)} |")
    whole = sum((totals[kind] for kind in kinds), Counter[str]())
    lines.append(f"| all | {' | '.join(str(whole[name]) for name in names)} |")
    days = sorted({call["begun"][:10] for call in calls})
    told = f"Calls: {len(calls)}, from {days[0]} to {days[-1]}."
    disks = [
        f"- {DISKS[kind]}: sessions {totals[kind]['sessions']}, "
        f"not as they should be {totals[kind]['bad']}"
        for kind in DISKS
        if kind in totals
    ]
    return "\n".join([*lines, "", told, *(["", *disks] if disks else [])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="how many kills (default 20)")
    parser.add_argument("--kind", choices=KINDS, help="kill no other one than this")
    parser.add_argument("--disks", action="store_true", help="also a full and a read-only disk")
    given = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    call = {"begun": datetime.now(UTC).isoformat(timespec="seconds"), "counts": counts}
    with tempfile.TemporaryDirectory(prefix="normbench-torture-") as folder:
        torture = Torture(Path(folder), random.Random(), given.kind)
        torture.undisturbed()
        disks = {"full": torture.full, "read-only": torture.read_only} if given.disks else {}
        for kind, hindered in disks.items():
            found = hindered()
            counts[kind] = Counter(sessions=1, bad=int(any(found.values())))
            add(call)
        killed = 0
        while killed < given.kills:
            for kind, found in torture.tortured():
                killed += found["kills"]
                counts.setdefault(kind, Counter()).update(found)
                add(call)
                print(f"{killed} of {given.kills}: {kind}: {found}", flush=True)


if __name__ == "__main__":
    main()
