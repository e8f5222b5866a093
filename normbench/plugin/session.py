"""The session in the process where all reports arrive: opened, told of on the terminal, closed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.junitxml import xml_key

from normbench.analysis.verdicts import replay_lines
from normbench.engine.controller import Controller, SessionOutcome
from normbench.engine.watchdog import Warden, debugging
from normbench.plugin.options import options_of
from normbench.plugin.outputs import json_files, make_way, tell_others, write_files
from normbench.plugin.progress import LiveProgress, SessionProgress
from normbench.plugin.stash import (
    CASE_PROPERTY,
    CHECK_PROPERTY,
    CLAIM_PROPERTY,
    MEASURED_PROPERTY,
    SEEDS_PROPERTY,
    UNCHANGED_PROPERTY,
)
from normbench.report.tables import junit_counts
from normbench.report.terminal import Terminal, session_sections
from normbench.storage.documents import Selection
from normbench.storage.environment import new_session_name
from normbench.storage.runs import RunNotStored, RunStore
from normbench.storage.session import SessionError

if TYPE_CHECKING:
    from normbench.engine.cluster import Cluster
    from normbench.spec import RunSpec


class SessionPlugin:
    """Hears of every test, and leads the session's controller.

    ``name`` is the session's where workers know it already. Raises pytest.UsageError for what the
    user gave and nothing can be trained with.
    """

    def __init__(self, config: pytest.Config, name: str | None) -> None:
        self.config = config
        self.outcome = SessionOutcome()
        self.progress: LiveProgress | None = None
        self.cluster: Cluster | None = None
        self.warden: Warden | None = None
        try:
            options = options_of(config)
            self.json_files = json_files(config)
            self.controller = Controller(options, name or new_session_name(), config.rootpath)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error

    def join(self) -> int:
        """Join the cluster that is to train, and return how many runs it takes at once.

        Raises pytest.UsageError where there is none.
        """
        from normbench.engine.cluster import Cluster

        try:
            self.cluster = Cluster(self.controller.options)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error
        return self.cluster.slots

    def hand_out(self, runs: Mapping[RunSpec, str]) -> None:
        """Have the cluster, where there is one, begin what the tests are sure to ask for."""
        if self.cluster is not None:
            self.cluster.begin(self.controller.session.folder, self.controller.is_current)
            self.cluster.hand_out(runs)

    def open(self, selection: Selection, workers: int) -> None:
        """Open the session, and tell of it from now on."""
        try:
            make_way(self.json_files)
            notes = self.controller.prepare(selection, workers)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error
        for note in notes:
            self._tell(note)
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter and selection.cases and reporter.verbosity >= 0:
            self._show_progress(reporter)
        timeout = self.controller.options.stall_timeout
        if self.config.getoption("dist", "no") != "no" and timeout != 0:
            self.warden = Warden(RunStore(self.controller.session.folder), timeout)
            self.warden.start()

    def _show_progress(self, reporter: Any) -> None:
        """Tell of the session on a board, where nobody else writes to the terminal."""
        # with -s, and without workers, tests write to the same terminal
        prints_through = (
            self.config.getoption("capture") == "no" and self.config.getoption("dist", "no") == "no"
        )
        self.progress = LiveProgress(
            # a store of its own: this one is read from another thread
            SessionProgress(RunStore(self.controller.session.folder), self.controller.cases),
            self.controller.outcomes,
            self.config.get_terminal_writer(),
            on_terminal=reporter.isatty and os.environ.get("TERM") != "dumb" and not prints_through,
            verbose=reporter.verbosity > 0,
        )
        self.progress.start()

    def record_crash(self, worker: str, test: str) -> str | None:
        """Store what a worker was at when it died in a test; return its case's id.

        Where it cannot be stored, as on a full disk, that is told, and the session goes on.
        """
        try:
            return self.controller.record_crash(worker, test)
        except RunNotStored as error:
            self._tell(str(error))
            return None

    def _tell(self, note: str) -> None:
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter:
            reporter.ensure_newline()
            reporter.write_line(f"normbench: {note}", yellow=True)

    def pytest_enter_pdb(self) -> None:
        debugging.set()
        if self.progress is not None:
            self.progress.pause()

    def pytest_leave_pdb(self) -> None:
        debugging.clear()
        if self.progress is not None:
            self.progress.resume()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test's outcome; before pytest tells it, the last epochs of its runs are told."""
        if self.progress is not None and report.when == "call":
            self.progress.tell_epochs()
        # of several attempts at a test, its last one counts
        rerun = str(report.outcome) == "rerun"
        if rerun or (report.when != "call" and report.outcome == "passed"):
            return
        properties: dict[str, Any] = dict(report.user_properties)
        if case := properties.get(CASE_PROPERTY):
            seeds = int(properties.get(SEEDS_PROPERTY, 0))
            skipped = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.controller.record_outcome(
                str(case), report.outcome, seeds, skipped.removeprefix("Skipped: ")
            )
        if (claim := properties.get(CLAIM_PROPERTY)) and report.outcome != "skipped":
            self.controller.judged.add(str(claim))
        if (checked := properties.get(CHECK_PROPERTY)) and report.outcome != "skipped":
            self.controller.checked.add(str(checked))

    def pytest_report_teststatus(
        self, report: pytest.TestReport | pytest.CollectReport
    ) -> tuple[str, str, str] | None:
        """Call a test unchanged that passed by earlier rows, and measured one without a target."""
        # of an error in collection, the report has none
        properties = dict(getattr(report, "user_properties", ()))
        if report.when != "call" or not report.passed:
            return None
        if properties.get(UNCHANGED_PROPERTY):
            return "unchanged", "u", "UNCHANGED"
        return ("measured", "m", "MEASURED") if MEASURED_PROPERTY in properties else None

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, object, object]:
        """Close the session once all others are through with it, before pytest sums it up."""
        self._tell_junit()
        result = yield
        self._finish(session, exitstatus)
        return result

    def _tell_junit(self) -> None:
        """Give the JUnit report, which is written next, the counts of the comparison."""
        if (report := self.config.stash.get(xml_key, None)) is None:
            return
        comparison = self.controller.comparison_so_far()
        for name, value in junit_counts(comparison).items() if comparison else ():
            report.add_global_property(f"normbench: {name}", value)

    def _finish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.progress is not None:
            self.progress.stop()
        if self.warden is not None:
            self.warden.stop()
        if self.cluster is not None:
            self.cluster.close()
        # pytest calls it a failure, no interruption, where -x, --maxfail or --max-worker-restart
        # leaves out the rest
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        # xdist tells that it gave up in no public way
        distributed = self.config.pluginmanager.get_plugin("dsession")
        gave_up = getattr(distributed, "_summary_report", None)
        finished = ended and not session.shouldfail and not gave_up
        try:
            self.outcome = self.controller.finish(finished=finished)
        except SessionError as error:  # as on a full disk: it stays as it was, to be resumed
            self.controller.session.close()
            self.outcome = SessionOutcome(notes=(str(error),))
            session.exitstatus = exitstatus or pytest.ExitCode.INTERNAL_ERROR
        self._hand_on()
        if exitstatus == pytest.ExitCode.OK and self.outcome.shortcomings:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _hand_on(self) -> None:
        """Give what was stored to other programs; what fails there is a note."""
        if (stored := self.outcome.session) is not None:
            notes = write_files(self.json_files, stored) + tell_others(self.config, stored)
            self.outcome = dataclasses.replace(self.outcome, notes=(*self.outcome.notes, *notes))

    def _terminal(self) -> Terminal:
        writer = self.config.get_terminal_writer()
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        return Terminal(writer.fullwidth if reporter.isatty else None, writer.hasmarkup)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        stored = self.outcome.session
        if stored is not None:
            kind = self.config.getoption("--bench-table") or "auto"
            quiet = terminalreporter.verbosity < 0
            for section in session_sections(stored, kind, self._terminal(), quiet):
                terminalreporter.section(f"normbench: {section.title}")
                terminalreporter.write_line(section.text, red=section.bad)
            terminalreporter.write_line(f"normbench: results in {stored.folder}")
        for note in self.outcome.notes:
            terminalreporter.write_line(f"normbench: {note}")
        for line in replay_lines(stored) if stored is not None else ():
            terminalreporter.write_line(f"normbench: {line}")
        for reason in self.outcome.shortcomings:
            terminalreporter.write_line(f"normbench: no pass, {reason}", red=True)
        if self.outcome.cases and self.outcome.left is not None:
            left = f"{self.outcome.left} of {self.outcome.cases} cases are left"
            goes_on = "; the same command with --bench-resume goes on with them"
            planted = self.controller.options.plant
            terminalreporter.write_line(
                f"normbench: interrupted, {left}{'' if planted else goes_on}", yellow=True
            )
        if planted := self.controller.options.plant:
            terminalreporter.write_line(
                f"normbench: the fault {planted} was planted: this session tells of no sound code",
                red=True,
            )
