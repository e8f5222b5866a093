"""No false alarm: the norm layers of timm come out with what they claim."""

import pytest

from normbench.check.conformance import check_norm
from normbench.check.properties import Standing

NORMS = [
    *(f"EvoNorm2d{kind}" for kind in ("B0", "B1", "B2")),
    *(f"EvoNorm2d{kind}" for kind in ("S0", "S0a", "S1", "S1a", "S2", "S2a")),
    *("FilterResponseNormTlu2d", "FilterResponseNormAct2d"),
    *("GroupNorm1", "LayerNorm2d", "RmsNorm2d", "SimpleNorm2d", "SplitBatchNorm2d"),
]


@pytest.mark.parametrize("name", NORMS)
def test_a_layer_of_timm_comes_out_with_what_it_claims(name: str) -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'normbench[test]'")
    found = check_norm(f"{__package__}.timm_norms:{name}", compiling=False, costs=False)
    assert found.broken == []


def test_a_split_batch_norm_refuses_batches_that_it_cannot_split() -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'normbench[test]'")
    found = check_norm("timm.layers:SplitBatchNorm2d", compiling=False, costs=False)
    assert found.broken == []
    told = {each.name: each.told for each in found.of(Standing.UNSUPPORTED)}
    assert told["batch of 1"] == told["batch of 5"]
    assert told["batch of 5"] == (
        "AssertionError: batch size must be evenly divisible by num_splits"
    )
    axes = {each.name: each.told for each in found.properties}
    assert axes["elements that share a statistic, training"] == "taken over N/2, H, W"
