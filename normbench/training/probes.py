"""What is noted of a network besides its accuracy: activations around its norms, and weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from normbench.models.sites import norm_layers
from normbench.results import WEIGHT_EDGES, LayerActivations

Statistics = tuple[float, float, float, float]


# no inference mode, as in trainer.evaluate
@torch.no_grad()
def activation_statistics(network: nn.Module, images: Tensor) -> dict[str, Statistics]:
    """Return, of each norm layer, mean and standard deviation of its inputs and of its outputs.

    They are over all elements for these images, in the network's present mode. The layers are
    known by their names in the network; none where it has no norm layers.
    """
    found: dict[str, Tensor] = {}

    def note(layer: str, inputs: Tensor, outputs: Tensor) -> None:
        both = (inputs.double(), outputs.double())
        parts = torch.stack([part for x in both for part in (x.mean(), x.std(correction=0))])
        # a row cannot hold infinities; what overflows is shown as the largest number there is
        found[layer] = parts.nan_to_num()

    hooks = [
        module.register_forward_hook(
            lambda _, inputs, outputs, layer=name: note(layer, inputs[0], outputs)
        )
        for name, module in norm_layers(network).items()
    ]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        return {}
    # one transfer from the device for all layers
    values = torch.stack(list(found.values())).tolist()
    return {layer: tuple(row) for layer, row in zip(found, values, strict=True)}


def by_layer(epochs: Sequence[Mapping[str, Statistics]]) -> tuple[LayerActivations, ...]:
    """Return each layer's statistics over the epochs."""
    if not epochs:
        return ()
    return tuple(
        LayerActivations(layer, *zip(*(epoch[layer] for epoch in epochs), strict=True))
        for layer in epochs[0]
    )


def weight_histogram(network: nn.Module) -> tuple[int, ...]:
    """Count what is trained by size: below the first edge, between two each, from the last on."""
    trained = (p.detach() for p in network.parameters() if p.requires_grad)
    sizes = torch.cat([p.flatten().abs() for p in trained])
    edges = torch.tensor(WEIGHT_EDGES, device=sizes.device, dtype=sizes.dtype)
    bins = torch.bucketize(sizes, edges, right=True)
    return tuple(torch.bincount(bins, minlength=len(edges) + 1).tolist())
