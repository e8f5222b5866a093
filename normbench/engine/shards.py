"""Parts of a selection of tests, for machines that know nothing of each other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# More are sure to be a slip of the hand.
MOST_SHARDS = 1000


@dataclass(frozen=True)
class Shard:
    """The part ``number``, from 1 up, of ``count``; spelled as ``2/8``."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard that is spelled so; raises ValueError for a text that spells none."""
        found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
        shard = cls(*map(int, found.groups())) if found else None
        if shard is None or not 1 <= shard.number <= shard.count <= MOST_SHARDS:
            raise ValueError(
                f"{text!r:.60}: expected a part and the number of parts, such as 2/8 for the "
                f"second of eight; at most {MOST_SHARDS} parts"
            )
        return shard


def dealt(costs: Mapping[str, float], count: int) -> list[set[str]]:
    """Deal what costs so much to ``count`` parts, which come to about as much each.

    The costliest goes first, to the part that has the least so far: no part comes to more than
    4/3 of what the best deal would have (Graham, Bounds on Multiprocessing Timing Anomalies,
    1969). Costs and names alone decide, and not their order, so that all machines deal alike.
    """
    parts: list[set[str]] = [set() for _ in range(count)]
    sums = [0.0] * count
    for name in sorted(costs, key=lambda name: (-costs[name], name)):
        # of things that cost nothing, each part gets as many
        least = min(range(count), key=lambda number: (sums[number], len(parts[number])))
        parts[least].add(name)
        sums[least] += costs[name]
    return parts
