"""The pytest plugin: parses, wires, delegates."""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import pandas as pd
import pytest

from normbench.benchmark import Benchmark
from normbench.cases import Case
from normbench.data import SOURCES, DatasetUnavailable
from normbench.options import add_options
from normbench.results import RunResult
from normbench.scheduling import LongestFirstScheduling, estimated_seconds
from normbench.spec import RunSpec
from normbench.tables import terminal_table

BENCHMARK = pytest.StashKey[Benchmark]()
CASE_PROPERTY = "normbench_case"


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "cases(*grids): parametrize `case` with each case of the grids of bench/cases named so, "
        "or `cases` with each grid's list of cases; without a name, those of --bench-cases",
    )
    benchmark = config.stash[BENCHMARK] = Benchmark.of(config)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Verdicts(benchmark), "normbench-verdicts")
    for family in sorted({_family(case) for case in benchmark.cases}):
        config.addinivalue_line("markers", f"{family}: cases that train on {family}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("cases")
    if marker is None:
        return
    cases = metafunc.config.stash[BENCHMARK].grids(*marker.args)
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", [_parameter(case.id, [case], case) for case in cases])
    if "cases" in metafunc.fixturenames:
        by_grid = {grid: list(group) for grid, group in groupby(cases, lambda case: case.grid)}
        metafunc.parametrize("cases", [_parameter(g, c, c) for g, c in by_grid.items()])


def _parameter(name: str, cases: list[Case], value: Case | list[Case]) -> Any:
    families = sorted({_family(case) for case in cases})
    return pytest.param(value, id=name, marks=[getattr(pytest.mark, f) for f in families])


def _family(case: Case) -> str:
    return SOURCES[case.spec.dataset].family


def _case(item: pytest.Item) -> Case | None:
    """Return the case that the test is about; None for a test about a whole grid, or none."""
    case = _parameters(item).get("case")
    return case if isinstance(case, Case) else None


def _cases(item: pytest.Item) -> list[Case]:
    """Return the cases that the test may ask runs of."""
    if isinstance(cases := _parameters(item).get("cases"), list):
        return cases
    case = _case(item)
    return [case] if case else []


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests whose grid has no case in this tier, and put the longest cases first.

    What looks at a whole grid comes last, when most of the runs that it asks for are there.
    """
    empty = [i for i in items if i.get_closest_marker("cases") and not _cases(i)]
    if empty:
        config.hook.pytest_deselected(items=empty)
    cases = {item: case for item in items if (case := _case(item))}
    others = [item for item in items if item not in cases and item not in empty]
    items[:] = (
        sorted(cases, key=lambda item: -estimated_seconds(cases[item].spec) * cases[item].seeds)
        + others
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepare the session where this process both collects and runs, without xdist."""
    if not hasattr(session.config, "workerinput") and not session.config.option.collectonly:
        _prepare(session.config, [case for item in session.items for case in _cases(item)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Iterable[str]) -> None:
    """Prepare the session in the controller, once the first worker knows what will run."""
    benchmark = node.config.stash[BENCHMARK]
    _prepare(node.config, benchmark.cases_of_nodes(ids))


def _prepare(config: pytest.Config, cases: list[Case]) -> None:
    try:
        notes = config.stash[BENCHMARK].prepare(cases)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    for note in notes if reporter else ():
        reporter.ensure_newline()
        reporter.write_line(f"normbench: {note}", yellow=True)


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
        try:
            return benchmark.run(spec, case.id if case else "")
        except DatasetUnavailable as unavailable:
            pytest.skip(str(unavailable))

    return run_spec


class Verdicts:
    """Collects the cases' outcomes where all reports arrive; shows and stores what they come to."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self.tables: dict[str, pd.DataFrame] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        case = dict(report.user_properties).get(CASE_PROPERTY)
        if case and (report.when == "call" or report.outcome != "passed"):
            self.benchmark.record_outcome(str(case), report.outcome)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        interrupted = exitstatus == pytest.ExitCode.INTERRUPTED
        self.tables = self.benchmark.finish("interrupted" if interrupted else "finished")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for grid, table in self.tables.items() if terminalreporter.verbosity >= 0 else ():
            terminalreporter.section(f"normbench: {grid}")
            terminalreporter.write_line(terminal_table(table))
        if self.tables:
            terminalreporter.write_line(f"normbench: results in {self.benchmark.session.folder}")
