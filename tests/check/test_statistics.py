"""How many means a norm layer computes, counted by what it does."""

import pytest

from normbench.check.statistics import means_computed
from normbench.models.norms import NormDoesNotFit


@pytest.mark.parametrize(
    ("norm", "means"), [("batch", 8), ("layer", 3), ("group:4", 12), ("instance", 24)]
)
def test_means_are_counted_by_what_a_layer_does(norm: str, means: int) -> None:
    assert means_computed(norm, images=3, channels=8) == means


def test_the_means_of_a_norm_that_does_not_fit_cannot_be_counted() -> None:
    with pytest.raises(NormDoesNotFit, match=r"group:3 does not fit layer 'probe': its 8 channels"):
        means_computed("group:3", images=3, channels=8)
