"""Standard and full: every norm from small batches to large ones."""

import pytest
import torch

from normbench.models.norms import NormSite, norm_factory


@pytest.mark.cases("batch_size_mnist", "batch_size_mnist_24_epochs", "batch_size_cifar10")
def test_batch_size(case, run_case):
    assert run_case(case).test_accuracy > case.target


def test_a_single_value_has_no_batch_statistics():
    # one image and a 1 x 1 map: torch refuses, as it should
    layer = norm_factory("batch")(NormSite("last", channels=8, height=1, width=1)).train()
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        layer(torch.randn(1, 8, 1, 1))
