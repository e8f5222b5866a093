"""Shards: spelled, and dealt alike by every machine, to about the same cost each."""

import random

import pytest

from normbench.engine.shards import Shard, dealt


def test_a_shard_is_spelled_as_its_number_of_all() -> None:
    shard = Shard.parse("2/8")
    assert (shard.number, shard.count, str(shard)) == (2, 8, "2/8")


@pytest.mark.parametrize("text", ["0/8", "9/8", "2", "a/b", "2/", "-1/2", "1/1001", "1 / 2", ""])
def test_what_spells_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a part and the number of parts, such as 2/8"):
        Shard.parse(text)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_each_case_is_in_one_shard_and_none_costs_much_more_than_its_share(
    seed: int, count: int
) -> None:
    drawn = random.Random(seed)
    costs = {f"case {number}": drawn.lognormvariate(0, 1) for number in range(100)}
    parts = dealt(costs, count)
    assert sorted(name for part in parts for name in part) == sorted(costs)
    # no deal can do better than the mean, or the costliest case alone
    best = max(sum(costs.values()) / count, max(costs.values()))
    assert max(sum(costs[name] for name in part) for part in parts) <= 4 / 3 * best


def test_the_order_in_which_cases_are_collected_changes_nothing() -> None:
    costs = {f"case {number}": float(number % 7) for number in range(40)}
    shuffled = list(costs.items())
    random.Random(0).shuffle(shuffled)
    assert dealt(dict(shuffled), 4) == dealt(costs, 4)


def test_what_costs_nothing_is_dealt_evenly() -> None:
    assert [len(part) for part in dealt(dict.fromkeys("abcdefgh", 0.0), 4)] == [2] * 4
