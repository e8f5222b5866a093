"""The pytest plugin: parses, wires, delegates."""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import pytest

from normbench.analysis.claims import ClaimResult
from normbench.cases.case import Case
from normbench.cases.claims import Claim
from normbench.engine.benchmark import Benchmark, SessionOutcome, grid_id
from normbench.engine.costs import estimated_seconds
from normbench.engine.xdist import LongestFirstScheduling
from normbench.plugin.options import add_options, options_of
from normbench.plugin.progress import LiveProgress, SessionProgress
from normbench.report.tables import terminal_claims, terminal_comparison, terminal_table
from normbench.results import RunResult, Runs
from normbench.spec import RunSpec
from normbench.storage.runs import RunStore
from normbench.training.datasets import DATASETS, DatasetUnavailable

BENCHMARK = pytest.StashKey[Benchmark]()
CASE_PROPERTY = "normbench_case"
CLAIM_PROPERTY = "normbench_claim"


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "cases(*grids): parametrize `case` with each case of the grids of bench/cases named so, "
        "or `cases` with each grid's list of cases; without a name, those of --bench-cases",
    )
    config.addinivalue_line(
        "markers",
        "claims: parametrize `claim` with each claim of bench/cases, or `case` with each "
        "configuration that they need runs of",
    )
    benchmark = config.stash[BENCHMARK] = _benchmark(config)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Verdicts(benchmark), "normbench-verdicts")
    for family in sorted({_family(case) for case in benchmark.cases}):
        config.addinivalue_line("markers", f"{family}: cases that train on {family}")


def _benchmark(config: pytest.Config) -> Benchmark:
    """Return the benchmark of a configuration; raises pytest.UsageError for bad input."""
    worker_input = getattr(config, "workerinput", {}).get("normbench")
    try:
        return Benchmark(options_of(config), config.rootpath, worker_input)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    benchmark = metafunc.config.stash[BENCHMARK]
    cases: list[Case] = []
    if metafunc.definition.get_closest_marker("claims"):
        cases = benchmark.claimed_cases
        if "claim" in metafunc.fixturenames:
            claims = [_parameter(claim.name, claim.cases, claim) for claim in benchmark.claims]
            metafunc.parametrize("claim", claims)
    elif marker := metafunc.definition.get_closest_marker("cases"):
        cases = benchmark.grids(*marker.args)
    else:
        return
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", [_parameter(case.id, [case], case) for case in cases])
    if "cases" in metafunc.fixturenames:
        by_grid = {grid: list(group) for grid, group in groupby(cases, lambda case: case.grid)}
        metafunc.parametrize("cases", [_parameter(grid_id(g), c, c) for g, c in by_grid.items()])


def _parameter(name: str, cases: list[Case], value: Case | list[Case] | Claim) -> Any:
    families = sorted({_family(case) for case in cases})
    return pytest.param(value, id=name, marks=[getattr(pytest.mark, f) for f in families])


def _family(case: Case) -> str:
    return DATASETS[case.spec.dataset].family


def _case(item: pytest.Item) -> Case | None:
    """Return the case that the test is about; None for a test about a whole grid, or none."""
    case = _parameters(item).get("case")
    return case if isinstance(case, Case) else None


def _claim(item: pytest.Item) -> Claim | None:
    claim = _parameters(item).get("claim")
    return claim if isinstance(claim, Claim) else None


def _cases(item: pytest.Item) -> list[Case]:
    """Return the cases that the test may ask runs of."""
    if (claim := _claim(item)) is not None:
        return claim.cases
    if isinstance(cases := _parameters(item).get("cases"), list):
        return cases
    case = _case(item)
    return [case] if case else []


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests without a case or a claim in this tier, and put the longest cases first.

    What looks at a whole grid comes last, when most of the runs that it asks for are there.
    """
    of_benchmark = [i for i in items if any(map(i.get_closest_marker, ("cases", "claims")))]
    empty = [i for i in of_benchmark if not (_cases(i) or _claim(i))]
    if empty:
        config.hook.pytest_deselected(items=empty)
    cases = {item: case for item in items if (case := _case(item))}
    others = [item for item in items if item not in cases and item not in empty]
    items[:] = (
        sorted(cases, key=lambda item: -estimated_seconds(cases[item].spec) * cases[item].seeds)
        + others
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Prepare the session where this process both collects and runs, without xdist.

    Not earlier: pytest collects for --fixtures too, and runs nothing after an error in collection.
    """
    option = session.config.option
    broken = session.testsfailed and not option.continue_on_collection_errors
    if hasattr(session.config, "workerinput") or option.collectonly or option.setuponly or broken:
        return
    cases = [case for item in session.items for case in _cases(item)]
    claims = [claim for item in session.items if (claim := _claim(item))]
    _prepare(session.config, cases, claims)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Collection[str]) -> None:
    """Prepare the session in the controller, once the first worker knows what will run."""
    benchmark = node.config.stash[BENCHMARK]
    _prepare(node.config, benchmark.cases_of_nodes(ids), benchmark.claims_of_nodes(ids))


def _prepare(config: pytest.Config, cases: list[Case], claims: list[Claim]) -> None:
    try:
        notes = config.stash[BENCHMARK].prepare(cases, claims)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    for note in notes if reporter else ():
        reporter.ensure_newline()
        reporter.write_line(f"normbench: {note}", yellow=True)
    verdicts: Any = config.pluginmanager.get_plugin("normbench-verdicts")
    if reporter and cases and reporter.verbosity >= 0:
        verdicts.show_progress(cases, reporter)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    benchmark = node.config.stash[BENCHMARK]
    worker = node.gateway.id
    node.workerinput["normbench"] = benchmark.worker_input(worker, len(node.nodemanager.specs))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[BENCHMARK].slots.release(node.gateway.id)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport, sched: Any) -> None:
    node = report.node
    case = node.config.stash[BENCHMARK].store.record_crash(node.gateway.id)
    if case:
        report.user_properties.append((CASE_PROPERTY, case))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") == "load":
        return LongestFirstScheduling(config, log)
    return None


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Callable[[RunSpec], RunResult]:
    """Train a spec, once in the session, and return its RunResult.

    Skips the test, with the reason and the remedy, where the data set is not to be had.
    """
    benchmark = request.config.stash[BENCHMARK]
    case = _case(request.node)
    if case is not None:
        request.node.user_properties.append((CASE_PROPERTY, case.id))

    def run_spec(spec: RunSpec) -> RunResult:
        with _skipping_without_data():
            return benchmark.run(spec, case.id if case else "")

    return run_spec


@pytest.fixture
def run_case(request: pytest.FixtureRequest) -> Callable[[Case], Runs]:
    """Train a case's runs, one a seed or as many as decide it, and return them as Runs.

    Skips the test as ``run`` does.
    """
    benchmark = request.config.stash[BENCHMARK]

    def run_all(case: Case) -> Runs:
        request.node.user_properties.append((CASE_PROPERTY, case.id))
        with _skipping_without_data():
            runs = benchmark.run_case(case)
        request.node.user_properties.extend(runs.figures().items())
        return runs

    return run_all


@pytest.fixture(name="judge")
def judge_claim(request: pytest.FixtureRequest) -> Callable[[Claim], ClaimResult]:
    """Train the runs that a claim stands on, and return what they say of it.

    Skips the test as ``run`` does.
    """
    benchmark = request.config.stash[BENCHMARK]

    def judge(claim: Claim) -> ClaimResult:
        request.node.user_properties.append((CLAIM_PROPERTY, claim.name))
        with _skipping_without_data():
            return benchmark.judge(claim)

    return judge


@contextmanager
def _skipping_without_data() -> Iterator[None]:
    try:
        yield
    except DatasetUnavailable as unavailable:
        pytest.skip(str(unavailable))


class Verdicts:
    """Collects the cases' outcomes where all reports arrive; shows and stores what they come to."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self.findings = SessionOutcome()
        self.progress: LiveProgress | None = None

    def show_progress(self, cases: list[Case], reporter: Any) -> None:
        """Tell of the session from now on: on a board, where nobody else writes to the terminal."""
        if self.progress is not None:
            return
        config = reporter.config
        # with -s, and without workers, tests write to the same terminal
        prints_through = (
            config.getoption("capture") == "no" and config.getoption("dist", "no") == "no"
        )
        self.progress = LiveProgress(
            # a store of its own: this one is read from another thread
            SessionProgress(RunStore(self.benchmark.session.folder), cases),
            self.benchmark.outcomes,
            config.get_terminal_writer(),
            on_terminal=reporter.isatty and os.environ.get("TERM") != "dumb" and not prints_through,
            verbose=reporter.verbosity > 0,
        )
        self.progress.start()

    def pytest_enter_pdb(self) -> None:
        if self.progress is not None:
            self.progress.pause()

    def pytest_leave_pdb(self) -> None:
        if self.progress is not None:
            self.progress.resume()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        properties = dict(report.user_properties)
        if case := properties.get(CASE_PROPERTY):
            self.benchmark.record_outcome(str(case), report.outcome)
        if (claim := properties.get(CLAIM_PROPERTY)) and report.outcome != "skipped":
            self.benchmark.judged.add(str(claim))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.progress is not None:
            self.progress.stop()
        # pytest calls it a failure, no interruption, where -x or --maxfail leaves out the rest
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        finished = ended and not session.shouldfail
        self.findings = self.benchmark.finish("finished" if finished else "interrupted")
        comparison = self.findings.comparison
        if exitstatus == pytest.ExitCode.OK and comparison and comparison.regressions:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        findings = self.findings
        for grid, table in findings.tables.items() if terminalreporter.verbosity >= 0 else ():
            terminalreporter.section(f"normbench: {grid}")
            terminalreporter.write_line(terminal_table(table))
        if (comparison := findings.comparison) is not None:
            terminalreporter.section(f"normbench: beside the baseline {comparison.baseline}")
            worse = bool(comparison.regressions)
            terminalreporter.write_line(terminal_comparison(comparison), red=worse)
        if findings.claims and terminalreporter.verbosity >= 0:
            terminalreporter.section("normbench: claims")
            unexpected = any(finding.unexpected for finding in findings.claims)
            terminalreporter.write_line(terminal_claims(findings.claims), red=unexpected)
        if findings.tables or findings.claims:
            terminalreporter.write_line(f"normbench: results in {self.benchmark.session.folder}")
        if findings.note:
            terminalreporter.write_line(f"normbench: {findings.note}")
