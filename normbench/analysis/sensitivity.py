"""How much a suite finds of what is planted: counts, and what is asked of it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from normbench.storage.sensitivity import Detection

# What is asked of the suite: the share of all faults that it finds, and how many it finds soon.
FOUND_SHARE = 0.95
SOON_SHARE = 0.90
SOON_SECONDS = 60.0

# Faults of this part are to be found by this stage alone.
NORM, CHECK = "norm", "check"


@dataclass(frozen=True)
class Sensitivity:
    """The searches for a number of faults, each planted alone."""

    detections: Sequence[Detection]

    @property
    def found(self) -> list[Detection]:
        """Those that a stage found."""
        return [each for each in self.detections if each.found]

    @property
    def missed(self) -> list[Detection]:
        """Those that no stage found."""
        return [each for each in self.detections if not each.found]

    @property
    def soon(self) -> list[Detection]:
        """Those that were found within SOON_SECONDS."""
        return [each for each in self.found if each.seconds <= SOON_SECONDS]

    @property
    def by_stage(self) -> dict[str, int]:
        """How many were found by each stage that found any, in the order of the stages."""
        found = Counter(each.found.stage for each in self.detections if each.found)
        order = dict.fromkeys(stage for each in self.detections for stage in each.stages)
        return {stage: found[stage] for stage in order if found[stage]}

    @property
    def norms_unchecked(self) -> list[Detection]:
        """Faults of norms that the check did not find, though it was among the stages."""
        return [
            each
            for each in self.detections
            if each.part == NORM
            and CHECK in each.stages
            and (each.found is None or each.found.stage != CHECK)
        ]

    def shortcomings(self) -> list[str]:
        """Return, a line each, what was asked of the suite and did not come about."""
        total, told = len(self.detections), []
        for found, share, when in (
            (len(self.found), FOUND_SHARE, ""),
            (len(self.soon), SOON_SHARE, f" within {SOON_SECONDS:g} s"),
        ):
            if found < share * total:
                told.append(
                    f"{found} of {total} found{when}: expected {100 * share:g} % or more of them"
                )
        if unchecked := self.norms_unchecked:
            told.append(
                f"{_faults(len(unchecked))} of norms not found by the {CHECK} alone: "
                f"{_names(unchecked)}"
            )
        return told

    def summary(self) -> str:
        """Return in one line how many were found, by what, and how soon."""
        total = len(self.detections)
        by = ", ".join(f"{number} by {stage}" for stage, number in self.by_stage.items())
        return (
            f"{len(self.found)} of {_faults(total)} found ({_share(len(self.found), total)})"
            f"{': ' if by else ''}{by}; {len(self.soon)} within {SOON_SECONDS:g} s "
            f"({_share(len(self.soon), total)})"
        )


def _share(number: int, total: int) -> str:
    return f"{100 * number / total:.1f} %" if total else "none"


def _faults(number: int) -> str:
    return f"{number} fault{'' if number == 1 else 's'}"


def _names(detections: Iterable[Detection]) -> str:
    return ", ".join(each.fault for each in detections)
