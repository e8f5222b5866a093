"""Real rows, exchanged at random between a baseline and a session: every alarm is a false one.

    python -m tests.analysis.exchange [SESSIONS] [NAME ...]

prints the tables of docs/verdicts.md. Of each case, the stored runs are shuffled; the first are
the session's, in the order of its seeds, and the rest, or so many of it, are the baseline's. The
session is then judged by the code that judges real ones.
"""

import csv
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats
from tabulate import tabulate

from normbench.analysis.comparison import Reference
from normbench.analysis.thresholds import CONFIRMING_SEEDS
from normbench.results import Outcome
from normbench.spec import RunSpec
from normbench.storage.baseline import Baseline

from .simulation import baseline_of, case_of, case_run, plan_of

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
DIGITS = Path(__file__).parent / "digits.csv"

Rows = Mapping[RunSpec, npt.NDArray[np.float64]]


def stored_rows(name: str) -> Rows:
    """Return the accuracies of each case of a committed baseline of which there are several."""
    cases = Baseline.read(REFERENCE / f"{name}.json").cases
    return {spec: np.array(case.accuracies) for spec, case in cases.items() if len(case.runs) > 1}


def digits_rows() -> Rows:
    """Return the accuracies of 60 seeds of each digits case; the file says where they were made."""
    lines = (line for line in DIGITS.read_text().splitlines() if not line.startswith("#"))
    known = {spec.label: spec for spec in stored_rows("digits")}
    return {
        known[row["case"]]: 1 - np.array([int(n) for n in row["wrong"].split()]) / 449
        for row in csv.DictReader(lines)
    }


@dataclass(frozen=True)
class Exchange:
    """How rows are exchanged: ``runs`` a case now, None as --bench-seeds auto has it.

    ``confirm`` more seeds confirm a suspicion; the baseline has ``baseline_runs`` of the rows, or
    all that are left. From the session's rows of the cases of ``norm``, or of the ``case`` alone,
    ``drop`` is taken, a fraction.
    """

    runs: int | None = 1
    confirm: int = CONFIRMING_SEEDS
    baseline_runs: int | None = None
    drop: float = 0.0
    norm: str | None = None
    case: RunSpec | None = None

    def dropped(self, spec: RunSpec) -> bool:
        return spec == self.case if self.case else spec.norm == self.norm


@dataclass(frozen=True)
class Found:
    """What came of exchanged sessions, counts over all of them.

    ``alarms`` are the sessions with a regression of a case without a drop, ``found`` those with
    one of a case with a drop; the rest are cases: ``suspected`` and ``undecided`` at the end, and
    ``further`` runs beside those that were planned.
    """

    sessions: int
    alarms: int
    found: int
    suspected: int
    undecided: int
    runs: int
    cases: int

    @property
    def upper_bound(self) -> float:
        """The upper end of the one-sided 95 % interval of the share of false alarms.

        Source: Clopper and Pearson, The Use of Confidence or Fiducial Limits, 1934.
        """
        return float(stats.beta.ppf(0.95, self.alarms + 1, self.sessions - self.alarms))


def exchanged(rows: Rows, exchange: Exchange, sessions: int, seed: int = 0) -> Found:
    """Judge so many sessions of exchanged rows."""
    rng = np.random.default_rng(seed)
    plan = plan_of(exchange.runs, exchange.confirm)
    alarms = found = suspected = undecided = runs = 0
    for _ in range(sessions):
        shuffled = {spec: rng.permutation(values) for spec, values in rows.items()}
        most = None if exchange.baseline_runs is None else plan[-1] + exchange.baseline_runs
        before = {spec: values[plan[-1] : most].tolist() for spec, values in shuffled.items()}
        reference, now = Reference([baseline_of(before)]), {}
        for spec, values in shuffled.items():
            drop = exchange.drop if exchange.dropped(spec) else 0.0
            drawn = case_of(spec, (values[: plan[-1]] - drop).tolist())
            now[spec] = case_run(drawn, reference, plan, 0.0, len(rows)).accuracies
            runs += len(now[spec])
        compared = reference.compare(baseline_of(now))
        worse = [case.spec for case in compared.regressions]
        alarms += any(not (exchange.drop and exchange.dropped(spec)) for spec in worse)
        found += any(exchange.drop and exchange.dropped(spec) for spec in worse)
        suspected += len(compared.of(Outcome.SUSPECTED))
        undecided += len(compared.of(Outcome.UNDECIDED))
    return Found(sessions, alarms, found, suspected, undecided, runs, len(rows))


def false_alarms(rows: Rows, plans: Sequence[Exchange], sessions: int) -> str:
    """Return the table of what exchanged sessions without a change came to."""
    table = []
    for exchange in plans:
        there = min(map(len, rows.values())) - plan_of(exchange.runs, exchange.confirm)[-1]
        if there < 2:
            continue
        found = exchanged(rows, exchange, sessions)
        planned = found.sessions * found.cases * (exchange.runs or 0)
        table.append(
            [
                "auto" if exchange.runs is None else exchange.runs,
                exchange.confirm if exchange.runs else "",
                exchange.baseline_runs or there,
                f"{found.alarms} of {sessions}",
                100 * found.alarms / sessions,
                100 * found.upper_bound,
                found.suspected / sessions,
                100 * found.undecided / sessions / found.cases,
                (found.runs - planned) / sessions / found.cases,
            ]
        )
    headings = ["runs a case", "confirming", "runs of the baseline", "sessions with an alarm", "%"]
    headings += ["95 % bound", "suspected cases a session", "undecided (%)", "further runs a case"]
    return tabulate(table, headings, tablefmt="pipe", floatfmt=".2f")


def power(rows: Rows, runs: Sequence[int | None], sessions: int) -> str:
    """Return the table of how often drops are found: of one case, and of all cases of a norm.

    A suspicion is confirmed as far as the rows allow, with a baseline of five runs at the least.
    """
    table, there = [], min(map(len, rows.values()))
    runs = [n for n in runs if plan_of(n, 0)[-1] + 5 <= there]
    for spec_or_norm in ("one case", "one norm"):
        for drop in (0.001, 0.002, 0.005, 0.01, 0.02):
            shares = []
            for count in runs:
                confirm = min(CONFIRMING_SEEDS, there - 5 - plan_of(count, 0)[-1])
                wanted = Exchange(count, confirm, drop=drop)
                if spec_or_norm == "one norm":
                    wanted = dataclasses.replace(wanted, norm="batch")
                else:
                    wanted = dataclasses.replace(wanted, case=next(iter(rows)))
                shares.append(100 * exchanged(rows, wanted, sessions).found / sessions)
            table.append([spec_or_norm, 100 * drop, *shares])
    headings = ["drop in", "points", *(f"{'auto' if n is None else n} runs" for n in runs)]
    return tabulate(table, headings, tablefmt="pipe", floatfmt=".1f")


PLANS = [
    *(Exchange(runs) for runs in (1, 2, 3, 5, 10, None)),
    *(Exchange(runs, confirm=0) for runs in (1, 2, 3, 5, 10)),
    *(Exchange(runs, baseline_runs=20) for runs in (1, 2, 3, 5, 10, None)),
    # of ten runs a case, as MNIST has them, more cannot be both planned and confirming
    Exchange(1, confirm=4),
    Exchange(3, confirm=2),
]


def main() -> None:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    names = sys.argv[2:] or ["digits", "cpu-mnist-plain", "cpu-cifar10-jpeg"]
    for name in names:
        rows = digits_rows() if name == "digits" else stored_rows(name)
        print(f"\n{name}: {len(rows)} cases, {min(map(len, rows.values()))} runs each\n")
        print(false_alarms(rows, PLANS, sessions), flush=True)
        print("\n" + power(rows, (1, 2, 5, 10, None), max(100, sessions // 10)), flush=True)


if __name__ == "__main__":
    main()
