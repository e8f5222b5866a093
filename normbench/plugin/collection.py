"""What the tests of this process ask for: their cases and claims, in which order, and the runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from normbench.analysis.looks import planned_looks
from normbench.cases.case import Case, Claim
from normbench.cases.catalogue import (
    Catalogue,
    cases_folder,
    checked_names,
    grid_id,
    traced_runs,
)
from normbench.check.trace_record import Traced
from normbench.engine.controller import selected
from normbench.engine.costs import CHECK_SECONDS, TRACE_SECONDS, estimated_seconds
from normbench.engine.shards import Shard, dealt
from normbench.plugin.options import options_of
from normbench.spec import RunSpec
from normbench.storage.documents import Selection
from normbench.training.datasets import DATASETS, find_dataset

if TYPE_CHECKING:
    from normbench.engine.runner import Runner


class Collected:
    """The cases and claims that a process has collected tests of.

    What is wrong with a cases file ends the session once collection is over: in the midst of it,
    pytest would take it for an error of one test file.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.options = options_of(config)
        self.catalogue = Catalogue(self.options.grid, self.options.cases)
        self.selection = Selection()
        self._elsewhere: list[pytest.Item] = []
        self.sure_runs: dict[RunSpec, str] = {}
        self.asked = False
        self.error = ""
        self._runner: Runner | None = None
        self._ours: set[tuple[object, str]] = set()
        self._markers = {facts.marker for facts in DATASETS.values()}

    def parametrize(self, metafunc: pytest.Metafunc, wanted: Set[str]) -> None:
        """Give a test the cases or claims that it wants; after an error, none."""
        self._ours.add(_function(metafunc.definition))
        marker = metafunc.definition.get_closest_marker("cases")
        grids = marker.args if marker else ()
        catalogue = self.catalogue
        self._read(metafunc, *grids)
        if metafunc.definition.get_closest_marker("claims"):
            cases = catalogue.claimed_cases
            if "claim" in wanted:
                claims = [self._parameter(c.name, c.cases, c) for c in catalogue.claims]
                metafunc.parametrize("claim", claims)
        else:
            cases = catalogue.grids(*grids)
        if "case" in wanted:
            metafunc.parametrize("case", [self._parameter(case.id, [case], case) for case in cases])
        if "cases" in wanted:
            by_grid = {grid: list(group) for grid, group in groupby(cases, lambda case: case.grid)}
            whole = [self._parameter(grid_id(g), group, group) for g, group in by_grid.items()]
            metafunc.parametrize("cases", whole)

    def _parameter(self, name: str, cases: list[Case], value: Case | list[Case] | Claim) -> Any:
        """Return a test's parameter, with the markers of the data sets that it trains on."""
        markers = {facts.marker: facts for facts in (find_dataset(c.spec.dataset) for c in cases)}
        for marker in markers.keys() - self._markers:
            # one of the user's own is known once its cases are read
            told = f"{marker}: cases that train on {markers[marker].family}"
            self.config.addinivalue_line("markers", told)
            self._markers.add(marker)
        marks = [getattr(pytest.mark, marker) for marker in sorted(markers)]
        return pytest.param(value, id=name, marks=marks)

    def _read(self, metafunc: pytest.Metafunc, *grids: str) -> None:
        """Read the cases beside a test, and note what is wrong with them or lacks a grid."""
        try:
            self.catalogue.add(cases_folder(Path(metafunc.definition.path)))
            self.catalogue.require(*grids)
        except ValueError as error:
            lines = [*self.error.splitlines(), *str(error).splitlines()]
            self.error = "\n".join(dict.fromkeys(lines))

    def parametrize_traces(self, metafunc: pytest.Metafunc) -> None:
        """Give a test the runs that are traced."""
        self._ours.add(_function(metafunc.definition))
        marker = metafunc.definition.get_closest_marker("traces")
        grids = marker.args if marker else ()
        self._read(metafunc, *grids)
        runs = traced_runs(self.options.grid, self.catalogue.grids(*grids) if grids else [])
        metafunc.parametrize("traced", [pytest.param(run, id=run.name) for run in runs])

    def parametrize_checks(self, metafunc: pytest.Metafunc, kinds: Set[str]) -> None:
        """Give a test the names of the norms, regularizers or networks that the tier checks."""
        self._ours.add(_function(metafunc.definition))
        names = checked_names(self.options.grid)
        for kind in sorted(kinds):
            metafunc.parametrize(kind, names[kind])

    def name(self, item: pytest.Item) -> None:
        """Let -k find a case by its name as it is written: in an id, pytest escapes ``größe``."""
        found = [_name(each) for each in (self.case_of(item), _claim(item)) if each is not None]
        # in brackets too, for one that is a part of another's name
        item.extra_keyword_matches.update([*found, *(f"[{name}]" for name in found)])

    def arrange(self, items: list[pytest.Item]) -> None:
        """Leave out tests without a case or a claim in this tier, and put the longest first.

        What looks at a whole grid comes last, when most of the runs that it asks for are there.
        Raises pytest.UsageError for what was wrong with a cases file, and for more shards than
        tests; a worker tells its controller instead, and has nothing to run.
        """
        if not self.error:
            self._arrange(items)
        if self.error:
            # pytest lists them before it tells the error
            items.clear()
            if not hasattr(self.config, "workerinput"):
                raise pytest.UsageError(self.error)

    def _arrange(self, items: list[pytest.Item]) -> None:
        ours = [item for item in items if _function(item) in self._ours]
        empty = [item for item in ours if not _has_subject(item)]
        if empty:
            self.config.hook.pytest_deselected(items=empty)
        cases = {item: case for item in items if (case := self.case_of(item)) is not None}
        others = [item for item in items if item not in cases and item not in empty]
        items[:] = sorted(cases, key=lambda item: -_seconds(item)) + others
        self.error = "\n".join(dict.fromkeys(self._misfits(items)))
        if self.options.shard is not None and not self.error:
            self._deal(items, self.options.shard)

    def _misfits(self, items: Sequence[pytest.Item]) -> Iterator[str]:
        """Yield why the cases of the tests cannot be trained, line by line."""
        misfits = {_built(case.spec): case.misfit for case in self.catalogue.cases if case.misfit}
        for item in items:
            traced = _parameters(item).get("traced")
            specs = [case.spec for case in _cases(item)]
            for spec in [*specs, traced.spec] if isinstance(traced, Traced) else specs:
                yield from misfits.get(_built(spec), "").splitlines()

    def _deal(self, items: list[pytest.Item], shard: Shard) -> None:
        """Leave out the tests of the other shards, and those of claims, which are judged by all.

        Tests of the same runs stay together. Leaves an error where there are fewer than shards.
        """
        names: dict[pytest.Item, str] = {}
        for number, item in enumerate(items):
            case = self.case_of(item)
            # cases of several grids may be of the same runs; a test's path is another one on
            # another machine
            same = None if case is None else case.spec.with_seed(0).key
            names[item] = same or f"{item.name} {number}"
        costs: dict[str, float] = {}
        for item, name in names.items():
            if _claim(item) is None:
                costs[name] = max(costs.get(name, 0.0), _seconds(item))
        if len(costs) < shard.count:
            self.error = (
                f"--bench-shard {shard}: {len(costs)} tests are selected, those of claims aside; "
                "expected at least one for each shard: give fewer shards, or select more tests"
            )
            return
        ours = dealt(costs, shard.count)[shard.number - 1]
        self._elsewhere = [item for item in items if names[item] not in ours]
        self.config.hook.pytest_deselected(items=self._elsewhere)
        items[:] = [item for item in items if names[item] in ours]

    def select(self, items: Sequence[pytest.Item], runs: bool) -> None:
        """Note what the tests that are left will ask for, in the order of the grids.

        ``runs`` says whether one of them asks for runs, which may be of no case.
        """
        ids = {case.id for item in items for case in _cases(item)}
        whole = (*items, *self._elsewhere)
        names = {claim.name for item in whole if (claim := _claim(item))}
        everywhere = {case.id for item in whole for case in _cases(item)}
        cases = [case for case in self.catalogue.cases if case.id in everywhere]
        self.selection = selected(
            [case for case in cases if case.id in ids],
            [claim for claim in self.catalogue.claims if claim.name in names],
            [case for case in cases if case.id not in ids],
            [case.id for case in cases] if self._elsewhere else (),
            {item.nodeid: case.id for item in items if (case := self.case_of(item))},
        )
        self.sure_runs = dict(run for item in items for run in self._sure_runs(item))
        self.asked = bool(runs or ids or names)

    def _sure_runs(self, item: pytest.Item) -> Iterator[tuple[RunSpec, str]]:
        """Yield the runs that a test is sure to ask for, whatever comes of them, by their cases."""
        claim = _claim(item)
        for case in _cases(item):
            sequential = self.options.grid.sequential and claim is None
            first, *_ = planned_looks(case.seeds, case.least, sequential, confirm=0)
            for spec in case.first_specs(first) if claim is None else case.specs[: claim.seeds]:
                yield spec, case.id

    def report(self, given: dict[str, Any]) -> None:
        """Leave the selection where the controller looks for it, if there is anything to say."""
        if self.asked or self.error:
            selection = self.selection.model_copy(update={"error": self.error})
            Path(given["report"]).write_text(selection.to_json(), encoding="utf-8")

    def case_of(self, item: pytest.Item) -> Case | None:
        """Return the case that the test is about; None for one about a whole grid, or none."""
        case = _parameters(item).get("case")
        return case if isinstance(case, Case) else None

    def runner(self, folder: Path, **worker: Any) -> Runner:
        """Return what trains in this process, with ``folder`` the session's; made once.

        ``worker`` are the further arguments of Runner, where this process is one of several.
        """
        if self._runner is None:
            from normbench.engine.runner import Runner

            # those of all shards share the error of the verdicts
            whole = (*self.selection.cases, *self.selection.elsewhere)
            cases = [stored.case for stored in whole]
            self._runner = Runner(self.options, folder, cases=cases, **worker)
        return self._runner


def _name(value: Case | Claim) -> str:
    return value.id if isinstance(value, Case) else value.name


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}


def _claim(item: pytest.Item) -> Claim | None:
    claim = _parameters(item).get("claim")
    return claim if isinstance(claim, Claim) else None


def _has_subject(item: pytest.Item) -> bool:
    """Whether there is something in this tier that the test is about."""
    traced = isinstance(_parameters(item).get("traced"), Traced)
    return bool(_cases(item) or _claim(item) or _checks(item) or traced)


def _checks(item: pytest.Item) -> list[str]:
    """Return the names of what the test checks."""
    found = (_parameters(item).get(kind) for kind in ("norm", "regularizer", "network"))
    return [name for name in found if isinstance(name, str)]


def _cases(item: pytest.Item) -> list[Case]:
    """Return the cases that the test may ask runs of."""
    parameters = _parameters(item)
    found = [value for value in parameters.values() if isinstance(value, Case)]
    for value in parameters.values():
        if isinstance(value, list):
            found += [case for case in value if isinstance(case, Case)]
        if isinstance(value, Claim):
            found += value.cases
    return found


def _built(spec: RunSpec) -> tuple[object, ...]:
    """Return what decides whether a run fits together."""
    return spec.dataset, spec.network, spec.norm, spec.regularizer, spec.dropout


def _seconds(item: pytest.Item) -> float:
    """Estimate what a test costs one core, by the runs that it may ask for, or what it checks."""
    runs = sum(estimated_seconds(case.spec) * case.seeds for case in _cases(item))
    traced = isinstance(_parameters(item).get("traced"), Traced)
    return runs + CHECK_SECONDS * len(_checks(item)) + TRACE_SECONDS * traced


def _function(item: pytest.Item) -> tuple[object, str]:
    """Return what all items of one test function have in common."""
    return item.parent, getattr(item, "originalname", item.name)
