"""How many runs a case gets: those that are planned, and further ones while its verdict is open."""

import math
from collections.abc import Sequence

from normbench.analysis.comparison import CaseComparison, margin_in_standard_errors
from normbench.analysis.statistics import Variance
from normbench.analysis.thresholds import EARLY_LOOKS, INTERIM_RUNS, MARGIN
from normbench.results import Outcome


def planned_looks(seeds: int, least: int, sequential: bool, confirm: int) -> tuple[int, ...]:
    """Return the numbers of runs after which a case is looked at.

    ``seeds`` are planned, or, where they are added while a case is undecided (``sequential``),
    the most, and ``least`` the fewest; ``confirm`` more confirm a suspicion.
    """
    ladder = (least, *(runs for runs in INTERIM_RUNS if least < runs <= seeds))
    # what was added while the case was undecided has been looked at early
    early = EARLY_LOOKS[1:] if sequential else EARLY_LOOKS
    further = (seeds + more for more in (*early, confirm) if more <= confirm)
    return tuple(dict.fromkeys((*(ladder if sequential else (seeds,)), *further)))


def goes_on(
    compared: CaseComparison | None,
    accuracies: Sequence[float],
    target: float,
    variance: Variance,
    sequential: bool,
) -> bool:
    """Tell whether further runs could change what is said of a case.

    ``compared`` is the case beside its baseline, None where there is none. A suspicion is always
    followed. Where runs are added while a case is undecided, that is so as well while a drop by
    the minimum effect is not ruled out, or the mean is close to the ``target``. Whatever this
    answers, the p-values of a comparison stay valid: they allow for all looks that may be taken.
    """
    outcome = compared and compared.outcome
    if not sequential:
        return outcome is Outcome.SUSPECTED
    room = margin_in_standard_errors(accuracies, target, variance)
    close = not math.isnan(room) and abs(room) < MARGIN
    return close or outcome in (Outcome.SUSPECTED, Outcome.UNDECIDED)
