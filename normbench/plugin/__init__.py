"""The pytest plugin: hooks and fixtures. It is installed in foreign projects too.

What torch, pandas and the like are needed for is imported once a test asks for cases or claims;
until then the plugin only has its options and markers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from normbench.plugin.options import add_options, require_consistent
from normbench.plugin.stash import (
    CASE_PROPERTY,
    CHECK_PROPERTY,
    CLAIM_PROPERTY,
    COLLECTED,
    MEASURED_PROPERTY,
    SEEDS_PROPERTY,
    SESSION,
    UNCHANGED_PROPERTY,
    WORKERS,
)
from normbench.training.datasets import DATASETS

if TYPE_CHECKING:
    from normbench.analysis.claims import ClaimResult
    from normbench.cases.case import Case, Claim
    from normbench.check.properties import Checked
    from normbench.check.trace_record import Trace, Traced
    from normbench.engine.runner import Runner
    from normbench.plugin.collection import Collected
    from normbench.plugin.session import SessionPlugin
    from normbench.plugin.workers import Workers
    from normbench.results import RunResult, Runs
    from normbench.spec import RunSpec


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from normbench.plugin import hookspec

    pluginmanager.add_hookspecs(hookspec)


# Of the plugin's own, beside one for each data set.
MARKERS = (
    "cases(*grids): parametrize `case` with each case of the grids named so, or `cases` with "
    "the list of cases of each grid; grids are read from the folder `cases` beside the test "
    "file, else from the suite; without a name, they are those of --bench-cases",
    "claims: parametrize `claim` with each claim, or `case` with each configuration that the "
    "claims need runs of",
    "conformance: parametrize `norm`, `regularizer` or `network` with the names of those that "
    "the suite has, and of --bench-norm, from the standard tier on",
    "traces(*grids): parametrize `traced` with a run of each norm and regularizer of the grids "
    "named so, and of every recipe that they do not train",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    for marker, family in sorted({(each.marker, each.family) for each in DATASETS.values()}):
        config.addinivalue_line("markers", f"{marker}: cases that train on {family}")
    require_consistent(config)
    if config.getoption("--bench-plant") is not None:
        from normbench.plugin.planting import plant

        plant(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.getoption("--bench-plant") is None:
        return None
    from normbench.plugin.planting import header

    return header(config)


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give marked tests their cases: after all others, who may give what is called so as well."""
    wanted = set(metafunc.fixturenames) - _given(metafunc)
    marker = metafunc.definition.get_closest_marker
    if cases := {"case", "cases", "claim"} & wanted if marker("cases") or marker("claims") else ():
        _collected(metafunc.config).parametrize(metafunc, cases)
    if kinds := {"norm", "regularizer", "network"} & wanted if marker("conformance") else ():
        _collected(metafunc.config).parametrize_checks(metafunc, kinds)
    if "traced" in wanted and marker("traces"):
        _collected(metafunc.config).parametrize_traces(metafunc)


def _given(metafunc: pytest.Metafunc) -> set[str]:
    """Return the arguments that a fixture or parametrize of the project's own gives.

    A foreign project may use our names, and its tests are not ours. pytest has no public way to
    ask; a version without these attributes answers that nothing is given.
    """
    calls = getattr(metafunc, "_calls", ())
    fixtures = getattr(metafunc, "_arg2fixturedefs", {})
    return {name for call in calls for name in call.params} | set(fixtures)


def pytest_itemcollected(item: pytest.Item) -> None:
    if COLLECTED in item.config.stash:
        item.config.stash[COLLECTED].name(item)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if COLLECTED in config.stash:
        config.stash[COLLECTED].arrange(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell the controller, where there is one, what the collected tests will ask for."""
    config = session.config
    asked = any(map(_asks_for_runs, session.items))
    if asked or COLLECTED in config.stash:
        _collected(config).select(session.items, asked)
        if (given := _worker_input(config)) is not None:
            config.stash[COLLECTED].report(given)


def _asks_for_runs(item: pytest.Item) -> bool:
    """Whether the test takes one of our fixtures, and none of its own project that is called so."""
    fixtures = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    asked = (
        fixtures[name][-1]
        for name in ("run", "run_case", "judge", "check", "trace")
        if fixtures.get(name)
    )
    return any(fixture.func.__module__ == __name__ for fixture in asked)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Open the session where this process both collects and runs, without xdist.

    Not earlier: pytest collects for --fixtures too, and runs nothing after an error in collection.
    """
    config, option = session.config, session.config.option
    broken = session.testsfailed and not option.continue_on_collection_errors
    idle = option.collectonly or option.setuponly or broken
    collected = config.stash.get(COLLECTED, None)
    if collected is None or not collected.asked or _worker_input(config) is not None or idle:
        return
    session_plugin = _session(config)
    workers = session_plugin.join() if collected.options.engine == "ray" else 1
    session_plugin.open(collected.selection, workers)
    session_plugin.hand_out(collected.sure_runs)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["normbench"] = _workers(node.config).input(node)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    _workers(node.config).release(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "load":
        return None
    return _workers(config).scheduler(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Collection[str]) -> None:
    """Open the session once the first worker has said what will run."""
    config = node.config
    if config.option.setuponly:
        return
    selection = _workers(config).selection(node)
    if selection is not None and SESSION not in config.stash:
        _session(config).open(selection, workers=len(node.nodemanager.specs))
        _workers(config).put_longest_first()
        _allow_crashes(config, len(selection.cases))


def _allow_crashes(config: pytest.Config, cases: int) -> None:
    """Let each case cost a worker: after four for each, xdist would leave out all that is left.

    It has no public way to be told so once the cases are known, and no user's word is overridden.
    """
    distributed: Any = config.pluginmanager.get_plugin("dsession")
    limit = getattr(distributed, "_max_worker_restart", None)
    if config.option.maxworkerrestart is None and limit is not None:
        distributed._max_worker_restart = max(limit, cases)


# before a plugin that has the test run again, which looks for the row
@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport, sched: Any) -> None:
    node: Any = getattr(report, "node")  # noqa: B009 (xdist adds it)
    if SESSION in node.config.stash:
        session, worker = node.config.stash[SESSION], node.gateway.id
        if told := session.controller.store.last_words(worker):
            report.longrepr = f"{told} ({report.longrepr})"
        case = session.record_crash(worker, crashitem)
        if case is not None:
            report.user_properties.append((CASE_PROPERTY, case))


def pytest_unconfigure(config: pytest.Config) -> None:
    if WORKERS in config.stash:
        config.stash[WORKERS].close()


def _worker_input(config: pytest.Config) -> dict[str, Any] | None:
    """Return what the controller gave this worker; None where this process is no worker."""
    given: dict[str, Any] | None = getattr(config, "workerinput", {}).get("normbench")
    return given


def _collected(config: pytest.Config) -> Collected:
    """Return what the tests of this process ask for; made when the first one does."""
    if COLLECTED not in config.stash:
        from normbench.plugin.collection import Collected

        config.stash[COLLECTED] = Collected(config)
    return config.stash[COLLECTED]


def _session(config: pytest.Config) -> SessionPlugin:
    """Return the session's controller; made when there is something to run."""
    if SESSION not in config.stash:
        from normbench.plugin.session import SessionPlugin

        name = config.stash[WORKERS].session if WORKERS in config.stash else None
        config.stash[SESSION] = SessionPlugin(config, name)
        config.pluginmanager.register(config.stash[SESSION], "normbench-session")
    return config.stash[SESSION]


def _workers(config: pytest.Config) -> Workers:
    """Return the controller's side of xdist's workers."""
    if WORKERS not in config.stash:
        from normbench.plugin.workers import Workers

        config.stash[WORKERS] = Workers(config)
    return config.stash[WORKERS]


def _runner(request: pytest.FixtureRequest) -> Runner:
    """Return what trains in this process; in a worker, for the session that it was told.

    A test that is rerun, as pytest-rerunfailures counts it, tries again what ended badly.
    """
    config = request.config
    collected, given = _collected(config), _worker_input(config)
    if given is None:
        session = _session(config)
        folder = session.controller.session.folder
        runner = collected.runner(folder, elsewhere=session.cluster)
    else:
        folder = collected.options.results / "runs" / given["session"]
        runner = collected.runner(
            folder, worker=given["worker"], slot=given["slot"], threads=given["threads"]
        )
    runner.tries_again = getattr(request.node, "execution_count", 1) > 1
    return runner


@contextmanager
def _told(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip the test without data; where rows cannot be stored, end the session, to be resumed."""
    from normbench.storage.runs import RunNotStored
    from normbench.training.datasets import DatasetUnavailable

    try:
        yield
    except DatasetUnavailable as unavailable:
        pytest.skip(str(unavailable))
    except RunNotStored as error:
        request.session.shouldstop = str(error)
        # without the causes, which say no more
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Callable[[RunSpec], RunResult]:
    """Train a spec, once in the session, and return its RunResult.

    Skips the test, with the reason and the remedy, where the data set is not to be had.
    """
    runner = _runner(request)
    case = _collected(request.config).case_of(request.node)
    if case is not None:
        request.node.user_properties.append((CASE_PROPERTY, case.id))
    sessions = []

    def run_spec(spec: RunSpec) -> RunResult:
        properties = request.node.user_properties
        with _told(request):
            result = runner.run(spec, case)
        sessions.append(result.replayed)
        properties[:] = [each for each in properties if each[0] != UNCHANGED_PROPERTY]
        # a test of several runs is unchanged where they all are
        if all(sessions):
            properties.append((UNCHANGED_PROPERTY, result.replayed))
        return result

    return run_spec


@pytest.fixture
def run_case(request: pytest.FixtureRequest) -> Callable[[Case], Runs]:
    """Train a case's runs, one a seed or as many as decide it, and return them as Runs.

    Skips the test as ``run`` does.
    """
    runner = _runner(request)

    def run_all(case: Case) -> Runs:
        request.node.user_properties.append((CASE_PROPERTY, case.id))
        if not case.has_target:
            request.node.user_properties.append((MEASURED_PROPERTY, True))
        with _told(request):
            runs = runner.run_case(case)
        request.node.user_properties.append((SEEDS_PROPERTY, len(runs)))
        request.node.user_properties.extend(runs.figures().items())
        return runs

    return run_all


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Callable[[str, str], Checked]:
    """Check a norm, a regularizer or a network by its name, and return what was found.

    ``check(kind, name)`` stores it with the session.
    """
    runner = _runner(request)

    def check_one(kind: str, name: str) -> Checked:
        request.node.user_properties.append((CHECK_PROPERTY, f"{kind} {name}"))
        return runner.check(kind, name)

    return check_one


@pytest.fixture
def trace(request: pytest.FixtureRequest) -> Callable[[Traced], Trace]:
    """Trace a run, store the trace with the session, and return it.

    What is broken of it says at which step and tensor the engine is wrong.
    """
    runner = _runner(request)

    def trace_one(traced: Traced) -> Trace:
        request.node.user_properties.append((CHECK_PROPERTY, f"trace {traced.name}"))
        return runner.trace(traced)

    return trace_one


@pytest.fixture(name="judge")
def judge_claim(request: pytest.FixtureRequest) -> Callable[[Claim], ClaimResult]:
    """Train the runs that a claim stands on, and return what they say of it.

    Skips the test as ``run`` does.
    """
    runner = _runner(request)

    def judge(claim: Claim) -> ClaimResult:
        request.node.user_properties.append((CLAIM_PROPERTY, claim.name))
        with _told(request):
            return runner.judge(claim)

    return judge
