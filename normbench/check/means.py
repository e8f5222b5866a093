"""How many means a norm layer computes, by what it does."""

import torch
from scipy.sparse import csgraph

from normbench.models.norms import NormSite, norm_factory


def means_computed(norm: str, images: int, channels: int) -> int:
    """Count the means that a norm layer computes for a batch in training, by what it does.

    An output depends on all the inputs that its mean is taken over: the elements that are
    connected so, through the layer's Jacobian, share a mean. Raises ValueError for a norm that
    is not known or does not fit.
    """
    height = width = 2
    layer = norm_factory(norm)(NormSite("probe", channels, height, width)).double().train()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, channels, height, width, dtype=torch.float64, generator=generator)
    jacobian = torch.autograd.functional.jacobian(layer, x).reshape(x.numel(), x.numel())
    components, _ = csgraph.connected_components(jacobian.numpy() != 0, directed=False)
    return int(components)
