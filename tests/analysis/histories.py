"""Histories of many nights, simulated and of real rows: which changes are found, which are none?

    python -m tests.analysis.histories [HISTORIES]

prints the tables of docs/change-points.md, of this test and of ruptures (pip install ruptures).
"""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats
from tabulate import tabulate

from normbench.analysis.change_points import CLIP, Change, find_changes
from normbench.analysis.nights import Draws, Night
from normbench.analysis.scans import p_of_splits
from normbench.analysis.spread import Spread
from normbench.analysis.statistics import Variance
from normbench.analysis.thresholds import LEVEL, MINIMUM_EFFECT

from .exchange import Rows, digits_rows, stored_rows
from .simulation import baseline_of

Array = npt.NDArray[np.float64]

# A change that is found so many nights off or less is the one that was made.
NEAR = 10

# The cases of a simulated history.
CASES = 70

# Draws so many accuracies of a case, at a level: 0 before any change, 1 after it.
Sample = Callable[[int, int], Array]


@dataclass(frozen=True)
class History:
    """A case's nights, what its baseline knows of its variance, and when it really changed."""

    nights: Sequence[Night]
    variance: Variance
    minimum_effect: float = 0.0
    cases: int = CASES
    changes: Sequence[int] = ()


@dataclass(frozen=True)
class Machine:
    """How nights come about: how probably one runs the code of the night before, and where.

    Equal code gives equal accuracies to the bit, on each of the ``machines`` of which nights are
    given one by chance; not where nothing ``repeats``, as on a GPU.
    """

    repeats: float = 0.0
    machines: int = 1

    def nights(
        self, rng: np.random.Generator, levels: Sequence[int], runs: int, sample: Sample
    ) -> list[Night]:
        """Return a night for each level; another level is other code."""
        known: dict[tuple[int, int], Night] = {}
        found, code, before = [], 0, levels[0]
        for level in levels:
            code += level != before or rng.random() >= self.repeats
            before, machine = level, int(rng.integers(self.machines))
            if (code, machine) not in known:
                accuracies = sample(level, runs)
                variance = float(accuracies.var(ddof=1)) if runs > 1 else None
                origin = f"code {code} on {machine}" if self.repeats else "a GPU"
                mean = float(accuracies.sum()) / runs
                known[code, machine] = Night(mean, runs, variance, origin)
            found.append(known[code, machine])
        return found


MACHINES = {
    "GPU": Machine(),
    "CPU": Machine(repeats=0.9),
    "two CPUs": Machine(repeats=0.9, machines=2),
}


@dataclass(frozen=True)
class Setting:
    """What histories are like: on which machine, how many nights of how many runs each.

    ``lasts`` is how many nights a change lasts; 0 where it stays. ``changes`` is how many follow
    each other, each a further drop.
    """

    machine: str = "GPU"
    nights: int = 90
    runs: int = 1
    lasts: int = 0
    changes: int = 1

    def levels(self, rng: np.random.Generator, changed: bool) -> list[int]:
        """Return 0 for a night before a change, 1 after it; it is in the middle three fifths.

        Several are a tenth or less off from even shares of the history.
        """
        levels = [0] * self.nights
        if changed and self.changes > 1:
            for change in range(self.changes):
                share = (change + 1) / (self.changes + 1) + rng.uniform(-0.1, 0.1)
                start = round(share * self.nights)
                levels[start:] = [change + 1] * (self.nights - start)
        elif changed:
            first, last = self.nights // 5, self.nights - self.nights // 5 - self.lasts
            start = int(rng.integers(first, last))
            stop = start + self.lasts if self.lasts else self.nights
            levels[start:stop] = [1] * (stop - start)
        return levels

    def history(
        self,
        rng: np.random.Generator,
        sample: Sample,
        variance: Variance,
        minimum_effect: float = 0.0,
        changed: bool = True,
        cases: int = CASES,
    ) -> History:
        levels = self.levels(rng, changed)
        nights = MACHINES[self.machine].nights(rng, levels, self.runs, sample)
        places = [i for i in range(1, len(levels)) if levels[i] != levels[i - 1]]
        return History(nights, variance, minimum_effect, cases, places)


@dataclass(frozen=True)
class Simulated:
    """A simulated case: normal, rounded to one of 10,000 images, with runs that collapse.

    ``collapses`` is how probably a run is 30 standard deviations lower; ``size`` is the size of a
    change in standard deviations of a run. Its baseline has 20 runs.
    """

    collapses: float = 0.0
    size: float = 0.0
    deviation: float = 0.0006

    def sample(self, rng: np.random.Generator) -> Sample:
        def draw(level: int, runs: int) -> Array:
            noise = rng.standard_normal(runs) - 30 * (rng.random(runs) < self.collapses)
            found = np.rint(1e4 * (0.97 + self.deviation * (noise - self.size * level))) / 1e4
            return np.asarray(found, dtype=np.float64)

        return draw

    def variance(self, rng: np.random.Generator) -> Variance:
        return Variance(self.deviation**2 * float(rng.chisquare(19)) / 19, 19)


def simulated_sessions(
    setting: Setting, case: Simulated, sessions: int, seed: int = 0
) -> Iterator[Iterator[History]]:
    """Yield the cases of histories without a change."""
    for session in range(sessions):
        rng = np.random.default_rng((seed, session))
        yield (
            setting.history(rng, case.sample(rng), case.variance(rng), changed=False)
            for _ in range(CASES)
        )


def from_rows(rng: np.random.Generator, *rows: Array) -> Sample:
    """Draw from real rows: of those before a change, and of those after it.

    None is drawn again before all of them are used up.
    """
    left: list[list[float]] = [[] for _ in rows]

    def draw(level: int, runs: int) -> Array:
        while len(left[level]) < runs:
            left[level] += rng.permutation(rows[level]).tolist()
        drawn = [left[level].pop(0) for _ in range(runs)]
        return np.array(drawn)

    return draw


def exchanged_sessions(
    setting: Setting, rows: Rows, sessions: int, seed: int = 0
) -> Iterator[Iterator[History]]:
    """Yield the cases of histories of real rows, without a change.

    The baseline has 20 rows of each case, the nights are drawn from the others. No effect is too
    small to count.
    """
    for session in range(sessions):
        rng = np.random.default_rng((seed, session))
        shuffled = {spec: rng.permutation(values) for spec, values in rows.items()}
        spread = Spread(baseline_of({spec: v[:20].tolist() for spec, v in shuffled.items()}))
        yield (
            setting.history(
                rng, from_rows(rng, v[20:]), spread.variance(spec), changed=False, cases=len(rows)
            )
            for spec, v in shuffled.items()
        )


def worse_configurations(rows: Rows, least: float, most: float) -> list[tuple[Array, Array]]:
    """Return the rows of pairs of cases, the second one worse by so much, a fraction.

    Of the one before the change no run has collapsed: it would be lost in its own noise.
    """
    sound = [values for values in rows.values() if values.std(ddof=1) < 0.01]
    return [
        (one, other)
        for one in sound
        for other in rows.values()
        if least <= one.mean() - other.mean() < most
    ]


# Returns the first nights after changes.
Method = Callable[[History], list[int]]


def by_this_test(history: History) -> list[int]:
    return [change.index for change in changes_of(history)]


def changes_of(history: History) -> tuple[Change, ...]:
    return find_changes(
        history.nights, history.minimum_effect, history.variance, cases=history.cases
    )


@dataclass(frozen=True)
class Ruptures:
    """A search of ruptures, with squared distances as its cost and the noise known.

    ``folded`` gives it our draws and their noise, ``clipped`` our clipping; ``tuned`` makes its
    penalty that of which one split of noise is as improbable as our level asks for, in place of
    that of Schwarz's criterion (BIC), 2 log(nights) variances. ``search`` is pelt, binseg, or
    normal: PELT, by the likelihood of normal values whose variance changes as well.
    """

    search: str = "pelt"
    folded: bool = False
    clipped: bool = False
    tuned: bool = False

    def __call__(self, history: History) -> list[int]:
        draws = Draws.of(history.nights, history.variance)
        values, first, noise = draws.values, draws.first, draws.noise
        if not self.folded:
            values = np.array([night.accuracy for night in history.nights])
            first, noise = tuple(range(len(values))), history.variance
        if len(values) < 4:
            return []
        runs = history.nights[0].runs
        signal = (values - np.median(values)) / np.sqrt(noise.value / runs)
        if self.clipped:
            signal = signal.clip(-CLIP * np.sqrt(runs), CLIP * np.sqrt(runs))
        penalty = 2 * float(np.log(len(values)))
        if self.tuned:
            penalty = improbable_gain(len(values), noise.degrees_of_freedom, history.cases)
        places = self._places(signal, penalty)
        bounds = [0, *places, len(values)]
        means = [float(values[i:j].mean()) for i, j in pairwise(bounds)]
        steps = np.abs(np.diff(means))
        return [first[p] for p, s in zip(places, steps, strict=True) if s > history.minimum_effect]

    def _places(self, signal: Array, penalty: float) -> list[int]:
        import ruptures

        if self.search == "pelt":
            search, cost = ruptures.KernelCPD("linear", min_size=1), penalty
        elif self.search == "binseg":
            search, cost = ruptures.Binseg(model="l2", min_size=1, jump=1), penalty
        else:
            # two parameters for each segment, and its place
            search, cost = ruptures.Pelt(model="normal", min_size=3, jump=1), 1.5 * penalty
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how it treats segments without any scatter
            places: list[int] = search.fit(signal).predict(pen=cost)
        return places[:-1]


@lru_cache(maxsize=10_000)
def improbable_gain(draws: int, degrees_of_freedom: float, cases: int) -> float:
    """Return by how many variances a split must better the fit to be significant at our level."""

    def excess(score: float) -> float:
        return p_of_splits(score, degrees_of_freedom, draws) - LEVEL / cases

    return float(optimize.brentq(excess, 1, 1e4)) ** 2


METHODS: dict[str, Method] = {
    "this test": by_this_test,
    "PELT, BIC": Ruptures(),
    "PELT, normal, BIC": Ruptures("normal"),
    "PELT, tuned": Ruptures(folded=True, tuned=True),
    "PELT, tuned, clipped": Ruptures(folded=True, clipped=True, tuned=True),
    "Binseg, tuned, clipped": Ruptures("binseg", folded=True, clipped=True, tuned=True),
}


def false_changes(method: Method, sessions: Iterable[Iterable[History]]) -> int:
    """Return how many histories without a change show one, in any of their cases."""
    return sum(any(method(case) for case in cases) for cases in sessions)


@dataclass(frozen=True)
class Found:
    """What a method found of the changes that were made; ``nights_off`` is of those found."""

    made: int
    nights_off: tuple[int, ...]
    others: int

    @property
    def missed(self) -> float:
        """The share that was missed, a percentage."""
        return 100 * (1 - len(self.nights_off) / self.made)

    @classmethod
    def by(cls, method: Method, histories: Iterable[History]) -> "Found":
        made, others, nights_off = 0, 0, []
        for history in histories:
            found, made = method(history), made + len(history.changes)
            for change in history.changes:
                nearest = min(found, key=lambda place: abs(place - change), default=None)
                if nearest is not None and abs(nearest - change) <= NEAR:
                    nights_off.append(abs(nearest - change))
                    found.remove(nearest)
            others += len(found)
        return cls(made, tuple(nights_off), others)


def simulated(setting: Setting, case: Simulated, histories: int, seed: int = 1) -> list[History]:
    """Return histories of one case that changes."""
    rng = np.random.default_rng(seed)
    return [setting.history(rng, case.sample(rng), case.variance(rng)) for _ in range(histories)]


def switched(
    setting: Setting, pairs: Sequence[tuple[Array, Array]], histories: int, family: str
) -> list[History]:
    """Return histories of real rows that go over to those of a worse configuration."""
    rng = np.random.default_rng(2)
    chosen = [pairs[i] for i in rng.integers(len(pairs), size=histories)]
    return [
        setting.history(
            rng,
            from_rows(rng, one, other),
            Variance(float(one.var(ddof=1)), len(one) - 1),
            MINIMUM_EFFECT[family],
        )
        for one, other in chosen
    ]


def upper_bound(count: int, of: int) -> float:
    """Return the upper end of the one-sided 95 % interval of a share.

    Source: Clopper and Pearson, The Use of Confidence or Fiducial Limits, 1934.
    """
    return 1.0 if count == of else float(stats.beta.ppf(0.95, count + 1, of - count))


def table_of_false_changes(histories: int) -> str:
    rows, table = digits_rows(), []
    settings = {
        "the digits": Setting(),
        "the digits, 30 nights": Setting(nights=30),
        "the digits on a CPU": Setting("CPU"),
        "the digits on two CPUs": Setting("two CPUs"),
        "the digits, 5 runs, 30 nights": Setting(nights=30, runs=5),
        "normal, 10 nights": Setting(nights=10),
        "normal": Setting(),
        "normal, 365 nights": Setting(nights=365),
        "2 of 1,000 collapsed, 5 runs, 30 nights": Setting(nights=30, runs=5),
    }
    for name, setting in settings.items():
        row: list[object] = [name]
        for title, method in METHODS.items():
            # of the others, fewer are plain enough
            sessions = histories if method is by_this_test else max(1, histories // 10)
            case = Simulated(collapses=0.002 if "collapsed" in name else 0.0)
            count = false_changes(
                method,
                exchanged_sessions(setting, rows, sessions)
                if "digits" in name
                else simulated_sessions(setting, case, sessions),
            )
            row.append(f"{count} of {sessions}")
            if method is by_this_test:
                row.append(100 * upper_bound(count, sessions))
            print(name, title, row[-1], file=sys.stderr, flush=True)
        table.append(row)
    first, *others = METHODS
    headings = ["histories of 70 cases", first, "95 % bound (%)", *others]
    return tabulate(table, headings, tablefmt="pipe", floatfmt=".1f")


def table_of_missed_changes(named: Mapping[str, Sequence[History]]) -> str:
    """Return the share of missed changes, and in how many histories others are found."""
    table = []
    for name, histories in named.items():
        row: list[object] = [name]
        for title, method in METHODS.items():
            found = Found.by(method, histories)
            row.append(f"{found.missed:.0f} / {100 * found.others / len(histories):.0f}")
            print(name, title, row[-1], file=sys.stderr, flush=True)
        table.append(row)
    return tabulate(
        table, ["missed / others (%)", *METHODS], tablefmt="pipe", disable_numparse=True
    )


def simulated_changes(histories: int) -> dict[str, Sequence[History]]:
    named = {
        "1 run, 30 nights": (Setting(nights=30), (1, 2, 3, 5)),
        "1 run, 90 nights": (Setting(), (0.5, 1, 2)),
        "5 runs, 30 nights": (Setting(nights=30, runs=5), (0.5, 1, 2)),
        "5 runs, 90 nights": (Setting(runs=5), (0.5, 1)),
        "1 run, 90 nights, CPU": (Setting("CPU"), (2, 3, 5)),
        "5 runs, 90 nights, CPU": (Setting("CPU", runs=5), (1, 2, 3, 5)),
        "1 run, 1 night of 90": (Setting(lasts=1), (5,)),
        "1 run, 4 nights of 90": (Setting(lasts=4), (3, 5)),
        "1 run, 7 nights of 90": (Setting(lasts=7), (2, 3, 5)),
        "1 run, 14 nights of 90": (Setting(lasts=14), (1, 2, 3)),
        "5 runs, 1 night of 90": (Setting(runs=5, lasts=1), (3, 5)),
        "1 run, 90 nights, three changes": (Setting(changes=3), (1, 2, 3)),
        "5 runs, 40 nights, three changes": (Setting(nights=40, runs=5, changes=3), (1, 2)),
        "5 runs, 180 nights, CPU, three changes": (
            Setting("CPU", nights=180, runs=5, changes=3),
            (2, 3),
        ),
    }
    return {
        f"{name}: {size:g}": simulated(setting, Simulated(size=size), histories)
        for name, (setting, sizes) in named.items()
        for size in sizes
    }


def switched_changes(histories: int) -> dict[str, Sequence[History]]:
    digits, mnist = digits_rows(), stored_rows("cpu-mnist-plain")
    named: dict[str, Sequence[History]] = {}
    for family, rows, bounds in (
        ("digits", digits, ((0.01, 0.015), (0.015, 0.03), (0.03, 0.08))),
        ("mnist", mnist, ((0.001, 0.0015), (0.0015, 0.003), (0.003, 0.02))),
    ):
        for least, most in bounds:
            pairs = worse_configurations(rows, least, most)
            for title, setting in (
                ("30 nights", Setting(nights=30)),
                ("90 nights, CPU", Setting("CPU")),
                ("7 nights of 90", Setting(lasts=7)),
            ):
                name = f"{family}, {title}, {100 * least:g} to {100 * most:g} points"
                named[f"{name} ({len(pairs)} pairs)"] = switched(setting, pairs, histories, family)
    return named


def coverage(histories: Sequence[History], drop: float) -> tuple[int, int, int]:
    """Return how many changes are found, and how often their place and size are in their intervals.

    ``drop`` is the size, a fraction.
    """
    found = [
        (change, history.changes[0])
        for history in histories
        for change in changes_of(history)
        if abs(change.index - history.changes[0]) <= NEAR
    ]
    places = sum(change.earliest <= place <= change.latest for change, place in found)
    intervals = [change.difference.interval() for change, _ in found]
    return len(found), places, sum(low <= -drop <= high for low, high in intervals)


def table_of_coverage(histories: int) -> str:
    table = []
    for setting, size in (
        (Setting(), 1.0),
        (Setting(), 1.5),
        (Setting(), 3.0),
        (Setting(runs=5), 1),
    ):
        made = simulated(setting, Simulated(size=size), histories)
        found, places, sizes = coverage(made, size * Simulated.deviation)
        off = Found.by(by_this_test, made).nights_off
        table.append(
            [
                f"{setting.runs} run{'s' * (setting.runs > 1)}, {size:g} deviations",
                found,
                float(np.median(off)),
                float(np.quantile(off, 0.9)),
                100 * places / found,
                100 * sizes / found,
            ]
        )
    headings = ["90 nights", "found", "nights off, median", "90 %", "place covered (%)", "size (%)"]
    return tabulate(table, headings, tablefmt="pipe", floatfmt=".1f")


def main() -> None:
    histories = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print(table_of_false_changes(histories), flush=True)
    print("\n" + table_of_missed_changes(simulated_changes(histories // 3)), flush=True)
    print("\n" + table_of_missed_changes(switched_changes(histories // 3)), flush=True)
    print("\n" + table_of_coverage(histories), flush=True)


if __name__ == "__main__":
    main()
