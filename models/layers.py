"""Norm layers that torch does not have, and the convolution with standardized weights.

Features have the shape ``(N, C, H, W)``; each layer computes features of 16 bits in float32 and
returns them in their own type. ``eps`` stands where the formula has it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _PerChannel(nn.Module):
    """A layer with a weight and a bias for each channel, which refuses features of other channels.

    Where it is broadcast, a single channel would fit any number of them.
    """

    def __init__(self, channels: int, weight: float = 1.0) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.full((channels,), weight))
        self.bias = nn.Parameter(torch.zeros(channels))

    def extra_repr(self) -> str:
        return str(self.channels)

    def taken(self, features: Tensor) -> Tensor:
        """Return the features in the type that they are computed in."""
        if features.shape[1] != self.channels:
            raise ValueError(
                f"{type(self).__name__} was built for {self.channels} channels: expected features "
                f"of (N, {self.channels}, H, W), got {tuple(features.shape)}"
            )
        return features.float() if features.dtype in (torch.bfloat16, torch.float16) else features


def _by_channel(parameter: Tensor) -> Tensor:
    return parameter.view(1, -1, 1, 1)


class RMSNorm(_PerChannel):
    """``weight * x / sqrt(mean(x^2) + eps) + bias``, the mean over an image's C, H and W.

    It is to ``layer`` what RMSNorm is to layer normalization: what it lacks is the centring. Other
    RMSNorms for feature maps take the mean over the channels of each place alone (timm's
    RmsNorm2d). The bias is the layer's own, which equation 2 of the paper adds after the norm.

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, equation 4.
    """

    eps = 1e-5

    def forward(self, features: Tensor) -> Tensor:
        x = self.taken(features)
        inverse = (x.square().mean((1, 2, 3), keepdim=True) + self.eps).rsqrt()
        scale = inverse * _by_channel(self.weight)
        return torch.addcmul(_by_channel(self.bias), x, scale).to(features.dtype)


class FilterResponseNorm(_PerChannel):
    """``max(weight * x / sqrt(mean(x^2) + eps) + bias, threshold)``, the mean over H and W.

    The maximum is the thresholded linear unit, whose threshold is trained, one a channel, from 0
    on; the network's own activation is left out. On maps of 1 x 1 the quotient is the sign of x.

    Source: Singh and Krishnan, Filter Response Normalization Layer, 2020, equations 1 to 4.
    """

    eps = 1e-6
    brings_activation = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.threshold = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        x = self.taken(features)
        inverse = (x.square().mean((2, 3), keepdim=True) + self.eps).rsqrt()
        scale = inverse * _by_channel(self.weight)
        # max(y, t) as relu(y - t) + t: torch.maximum's backward pass takes ten times as long
        above = F.relu(torch.addcmul(_by_channel(self.bias - self.threshold), x, scale))
        return (above + _by_channel(self.threshold)).to(features.dtype)


class GlobalResponseNorm(_PerChannel):
    """``weight * x * g / (mean_C(g) + eps) + bias + x``, where ``g = sqrt(sum_HW x^2)``.

    Channels compete by the size of their response in the whole map. Weight and bias begin at 0, so
    that it begins as the identity, and the scale of the features stays as it is.

    Source: Woo et al., ConvNeXt V2, 2023, equations 1 to 3 and algorithm 1.
    """

    eps = 1e-6
    keeps_scale = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels, weight=0.0)

    def forward(self, features: Tensor) -> Tensor:
        x = self.taken(features)
        # of a map of zeros, the root of 0 would have an infinite gradient
        least = torch.finfo(x.dtype).tiny
        response = (x.square().sum((2, 3), keepdim=True) + least).sqrt()
        share = response / (response.mean(1, keepdim=True) + self.eps)
        scale = torch.addcmul(torch.ones_like(share), share, _by_channel(self.weight))
        return torch.addcmul(_by_channel(self.bias), x, scale).to(features.dtype)


class DynamicTanh(_PerChannel):
    """``weight * tanh(alpha * x) + bias``, where alpha is one trained number, from 0.5 on.

    It takes no statistics. The network's activation follows it.

    Source: Zhu et al., Transformers without Normalization, 2025, section 4.
    """

    keeps_scale = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.alpha = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, features: Tensor) -> Tensor:
        x = self.taken(features)
        squashed = torch.tanh(self.alpha * x)
        affine = torch.addcmul(_by_channel(self.bias), squashed, _by_channel(self.weight))
        return affine.to(features.dtype)


class EvoNormS0(_PerChannel):
    """``weight * x * sigmoid(v * x) / sqrt(var(x) + eps) + bias``.

    The variance, which is biased, is over H, W and the channels of one group; ``v`` is trained,
    one a channel, from 1 on. It has its activation in it; the network's own is left out.

    Source: Liu et al., Evolving Normalization-Activation Layers, 2020, table 1, where there are 32
    groups.
    """

    eps = 1e-5
    brings_activation = True

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(channels)
        self.groups = groups
        self.v = nn.Parameter(torch.ones(channels))

    def extra_repr(self) -> str:
        return f"{self.groups}, {self.channels}"

    def _of_group(self, means: Tensor) -> Tensor:
        """Map the means of channels to those of their groups, as ``(N, C, 1, 1)``."""
        grouped = means.unflatten(1, (self.groups, -1))
        means = grouped.mean(2, keepdim=True).expand_as(grouped).flatten(1)
        return means[..., None, None]

    def forward(self, features: Tensor) -> Tensor:
        x = self.taken(features)
        # the mean of (x - m)^2 has the same gradient whether m moves with x or not
        deviation = x - self._of_group(x.detach().mean((2, 3)))
        variance = self._of_group(deviation.square().mean((2, 3)))
        scale = (variance + self.eps).rsqrt() * _by_channel(self.weight)
        activated = x * torch.sigmoid(_by_channel(self.v) * x)
        return torch.addcmul(_by_channel(self.bias), activated, scale).to(features.dtype)


class BatchRenorm(_PerChannel):
    """``weight * ((x - m) / s * r + d) + bias``, with mean and deviation over N, H and W.

    ``s = sqrt(var(x) + eps)``, the variance biased. ``r = s / S`` cut to ``[1 / r_max, r_max]``
    and ``d = (m - M) / S`` cut to ``[-d_max, d_max]`` are constants to the gradient; ``M`` and
    ``S`` are the running mean and deviation before the batch, to which the batch then adds its
    own with the weight 0.1. Where nothing is cut, the output is ``weight * (x - M) / S + bias``,
    which it always is at evaluation.

    It begins as batch normalization, with ``r_max = 1`` and ``d_max = 0`` for 100 steps; then both
    are raised linearly, ``r_max`` to 3 at step 800 and ``d_max`` to 5 at step 500. That is a
    fiftieth of the paper's steps, for runs that are as much shorter.

    Source: Ioffe, Batch Renormalization, 2017, algorithm 1 and section 4.2.
    """

    eps = 1e-5
    momentum = 0.1
    # the first and the last step of the raise, and what it comes to
    R_STEPS, R_MAX = (100, 800), 3.0
    D_STEPS, D_MAX = (100, 500), 5.0

    running_mean: Tensor
    running_std: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_std", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    def _raised(self, steps: tuple[int, int], begin: float, end: float) -> Tensor:
        first, last = steps
        # in the type of the statistics: whole numbers would be divided in float32
        batches = self.num_batches_tracked.to(
            torch.promote_types(self.running_std.dtype, torch.float32)
        )
        share = ((batches - first) / (last - first)).clamp(0, 1)
        return begin + (end - begin) * share

    @torch.no_grad()
    def _corrections(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``r`` and ``d`` of a batch, which is then added to the running statistics."""
        # torch.var_mean takes ten times as long in channels_last
        mean = x.mean((0, 2, 3))
        variance = (x - _by_channel(mean)).square().mean((0, 2, 3))
        std = (variance + self.eps).sqrt()
        r_max = self._raised(self.R_STEPS, 1.0, self.R_MAX)
        d_max = self._raised(self.D_STEPS, 0.0, self.D_MAX)
        r = (std / self.running_std).clamp(1 / r_max, r_max)
        d = ((mean - self.running_mean) / self.running_std).clamp(-d_max, d_max)
        # in place, which CUDA graphs need
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_std.lerp_(std.to(self.running_std.dtype), self.momentum)
        self.num_batches_tracked.add_(1)
        return r, d

    def forward(self, features: Tensor) -> Tensor:
        x = self.taken(features)
        if self.training:
            r, d = self._corrections(x)
            weight, bias = self.weight * r, self.weight * d + self.bias
            output = F.batch_norm(x, None, None, weight, bias, training=True, eps=self.eps)
        else:
            scale = self.weight / self.running_std
            shift = self.bias - self.running_mean * scale
            output = torch.addcmul(_by_channel(shift), x, _by_channel(scale))
        return output.to(features.dtype)


class GhostBatchNorm(nn.BatchNorm2d):
    """Batch normalization of each ``images`` images of a batch by themselves: a ghost batch.

    Ghost batches are taken in the batch's order; if its size is no multiple, the last one has
    fewer images, and is normalized by these alone. Each ghost batch adds its statistics to the
    running ones with the weight 0.1, one after the other. At evaluation it is ``BatchNorm2d``.

    Source: Hoffer, Hubara and Soudry, Train Longer, Generalize Better, 2017, algorithm 1.
    """

    def __init__(self, images: int, channels: int) -> None:
        super().__init__(channels)
        self.images = images

    def extra_repr(self) -> str:
        return f"{self.images}, {self.num_features}"

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or len(features) <= self.images:
            return super().forward(features)
        self._check_input_dim(features)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        ghosts = [
            F.batch_norm(
                ghost,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=True,
                momentum=self.momentum or 0.0,
                eps=self.eps,
            )
            for ghost in features.split(self.images)
        ]
        return torch.cat(ghosts)


class StandardizedConv2d(nn.Conv2d):
    """A convolution with ``(w - m) / sqrt(v + eps)`` as its weights, eps being 1e-10.

    ``m`` and ``v`` are mean and variance of each filter's weights, over its input channels and
    places; ``w`` is what is trained and stored.

    Source: Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight
    Standardization, 2019; the epsilon is that of Kolesnikov et al., Big Transfer, 2019.
    """

    def standardized(self) -> Tensor:
        """Return the weights that features are convolved with."""
        # a third of the time of torch.var_mean, and in the memory order that the weights have
        filters = self.weight.permute(0, 2, 3, 1)
        return F.layer_norm(filters, filters.shape[1:], eps=1e-10).permute(0, 3, 1, 2)

    def forward(self, features: Tensor) -> Tensor:
        # torch's own, which pads; it has no types
        output: Tensor = self._conv_forward(features, self.standardized(), self.bias)
        return output
