"""Stages of gpu.py that test: what needs a GPU, the trace, and the check of each norm."""

import ast
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from gpu_runner import end_group
from gpu_training import Setup, Tell
from junit import junit_outcome

ROOT = Path(__file__).resolve().parent.parent
TRACE = ROOT / "bench" / "test_trace.py"
# The tests that are skipped without a GPU, and those of what else is different where there is one.
TESTS_OF_STEPS = "tests/training/test_steps.py"
OTHER_TESTS = (
    *("tests/training/test_trainer.py", "tests/training/test_checkpoints.py"),
    *("tests/engine/test_devices.py", "tests/engine/test_runner.py", "tests/storage/test_runs.py"),
)


def pytest_run(
    setup: Setup, name: str, seconds: float, *arguments: str, **environment: str
) -> dict[str, Any]:
    """Run pytest; return its wall-clock seconds, its counts, and what failed, in full."""
    junit = setup.folder / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    start = time.perf_counter()
    found: dict[str, Any] = {"arguments": " ".join(arguments)}
    # what it prints goes to the stage's log; a group of its own ends with its workers
    process = subprocess.Popen(
        [*command, f"--junitxml={junit}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        found["exit status"] = process.wait(max(seconds, 1.0))
    except subprocess.TimeoutExpired:
        found["exit status"] = f"not done in {seconds:.0f} s"
    finally:
        end_group(process)
    found["wall seconds"] = time.perf_counter() - start
    return found | junit_outcome(junit)


def told_of(outcome: dict[str, Any]) -> str:
    if outcome["tests"] is None:
        return f"no outcome, exit status {outcome['exit status']}"
    failed, skipped = outcome["failed"], outcome["skipped"]
    told = f"{outcome['passed']} passed, {len(failed)} failed, {len(skipped)} skipped"
    return told + (f" (failed: {', '.join(failed)})" if failed else "")


def missing_imports(file: Path) -> list[str]:
    """Return what a module imports at its top and what is not installed."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return sorted(name for name in names if name and importlib.util.find_spec(name) is None)


def tests(setup: Setup, tell: Tell) -> None:
    """Run the tests that need a GPU, then others of what runs on one."""
    start = time.monotonic()
    missing = {file: missing_imports(ROOT / file) for file in OTHER_TESTS}
    chosen = [file for file, names in missing.items() if not names]
    found: dict[str, Any] = {
        "missing packages": {f: names for f, names in missing.items() if names}
    }
    found["steps"] = pytest_run(setup, "tests-of-steps", setup.seconds - 3, TESTS_OF_STEPS)
    told = f"steps: {told_of(found['steps'])}"
    tell({**found, "told": told})
    if chosen and not setup.quick:
        left = setup.seconds - (time.monotonic() - start) - 3
        workers = str(min(8, len(os.sched_getaffinity(0))))
        found["others"] = pytest_run(setup, "tests-of-others", left, *chosen, "-n", workers)
        tell({**found, "told": f"{told}; others: {told_of(found['others'])}"})


def trace(setup: Setup, tell: Tell) -> None:
    """Hold the engine's steps on the GPU against an independent loop."""
    outcome = pytest_run(
        *(setup, "trace", setup.seconds - 2, str(TRACE.relative_to(ROOT))),
        *("--bench-device", setup.device, "--bench-tier", "smoke", "--maxfail", "3"),
        *("-n", str(min(8, len(os.sched_getaffinity(0))))),
        *("--bench-results", str(setup.folder / "trace")),
    )
    tell({**outcome, "told": told_of(outcome)})


def checked(name: str) -> dict[str, Any]:
    """Check a norm in this process."""
    from normbench.check.conformance import check_norm

    sys.path.insert(0, str(ROOT))
    found = check_norm(name, compiling=False, costs=False)
    on_gpu = {p.name: f"{p.standing}: {p.told}" for p in found.properties if p.name == "CUDA"}
    return {
        "seconds": found.seconds,
        "counts": found.counts,
        "broken": found.broken,
        "CUDA": on_gpu.get("CUDA", "the check has none"),
    }


def check(setup: Setup, tell: Tell) -> None:
    """Check every built-in norm, and those of timm where it is there."""
    names = ["none", "batch", "layer", "layer_chw", "group:2", "group:4", "instance"]
    if setup.quick:
        names = names[:2]
    elif importlib.util.find_spec("timm") is not None:
        names += timm_norms()
    found: dict[str, Any] = {}
    workers = min(8, len(os.sched_getaffinity(0)), len(names))
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawned) as pool:
        running = {pool.submit(checked, name): name for name in names}
        for done in as_completed(running):
            name = running[done]
            error = done.exception()
            found[name] = (
                done.result() if error is None else {"error": f"{type(error).__name__}: {error}"}
            )
            print(name, found[name], flush=True)
            bad = [n for n, each in found.items() if each.get("broken") or "error" in each]
            told = f"{len(found)} of {len(names)} norms checked; broken: {', '.join(bad) or 'none'}"
            tell({"told": told, "norms": {n: found[n] for n in names if n in found}})


def timm_norms() -> list[str]:
    """Return the names of timm's layers that the tests check, without importing the tests."""
    text = (ROOT / "tests" / "check" / "timm_norms.py").read_text()
    names = [
        node.targets[0].id
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]
    return [f"tests.check.timm_norms:{n}" for n in names if any(c.islower() for c in n)]
