"""Norms that are wrong in one way each, and right ones that claim what they are."""

import copy
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLACES = (1, 2, 3)


def standardized(x: Tensor, axes: tuple[int, ...] = PLACES, epsilon: float = 1e-5) -> Tensor:
    mean = x.mean(axes, keepdim=True)
    return (x - mean) / (x.var(axes, keepdim=True, correction=0) + epsilon).sqrt()


class Right(nn.Module):
    """Layer normalization with weights per channel."""

    normbench_claims: ClassVar[dict[str, Any]] = {
        "axes": ["C", "H", "W"],
        "affine": "per channel",
        "batch_independent": True,
        "invariances": ["scale", "shift", "image scale", "channel permutation"],
    }

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * standardized(x) + self.shift


class RootMeanSquare(nn.Module):
    """Claims nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x * (x.square().mean(PLACES, keepdim=True) + 1e-5).rsqrt()


class DetachedDeviation(Right):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(PLACES, keepdim=True)
        deviation = (x.var(PLACES, keepdim=True, correction=0) + 1e-5).sqrt().detach()
        return self.scale * (x - mean) / deviation + self.shift


class DetachedWeight(Right):
    def forward(self, x: Tensor) -> Tensor:
        return self.scale * standardized(x) + self.shift.detach()


class DeclaredStop(DetachedDeviation):
    normbench_claims: ClassVar[dict[str, Any]] = {**Right.normbench_claims, "stops_gradients": True}


class WrongAxes(Right):
    def forward(self, x: Tensor) -> Tensor:
        return self.scale * standardized(x, (2, 3)) + self.shift


class LooksAtOthers(Right):
    """Statistics over the batch, where none are claimed."""

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * standardized(x, (0, 1, 2, 3)) + self.shift


class BatchAtEvaluation(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


class ChangesAtEvaluation(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        if not self.training and self.running_mean is not None:
            with torch.no_grad():
                self.running_mean.mul_(0.9).add_(x.mean((0, 2, 3)), alpha=0.1)
        return output


class OtherMomentum(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        momentum = 0.2 if self.training else 0.0
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            momentum,
            self.eps,
        )


class BiasedVariance(nn.BatchNorm2d):
    normbench_claims: ClassVar[dict[str, Any]] = {"unbiased": True}

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.running_var is None or self.running_mean is None:
            return super().forward(x)
        with torch.no_grad():
            variance = x.var((0, 2, 3), correction=0)
            self.running_var.mul_(0.9).add_(variance, alpha=0.1)
            self.running_mean.mul_(0.9).add_(x.mean((0, 2, 3)), alpha=0.1)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.1, self.eps)


class OnePassVariance(Right):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(PLACES, keepdim=True)
        variance = (x * x).mean(PLACES, keepdim=True) - mean * mean
        return self.scale * (x - mean) / (variance.clamp(0) + 1e-5).sqrt() + self.shift


class ReadsGradientInTheWrongOrder(Right):
    """Goes by the memory of the output's gradient, whatever its strides are."""

    class _Function(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, gradient: Tensor) -> Tensor:
            if gradient.is_contiguous():
                return gradient
            memory = torch.as_strided(gradient, (gradient.numel(),), (1,))
            return memory.clone().reshape(gradient.shape)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self._Function.apply(super().forward(x))
        return output


class WritesToItsInput(Right):
    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        with torch.no_grad():
            x.mul_(1.0).add_(1.0)
        return output


class SaysThatItDepends(Right):
    """A claim that is not so: no image depends on others."""

    normbench_claims: ClassVar[dict[str, Any]] = {"batch_independent": False}


class SaysThatItStores(Right):
    normbench_claims: ClassVar[dict[str, Any]] = {"unbiased": True}


class WorksInPlace(Right):
    """Right: what comes before a norm in a network needs its output no more."""

    normbench_claims: ClassVar[dict[str, Any]] = {}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2.0))


class MeanOfAllBatches(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=None)


class Random(Right):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-3 * torch.randn_like(x)


class LosesState(Right):
    """Keeps what evaluation needs where no state_dict has it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.seen = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + 1
        return super().forward(x) * (1 + 0.1 * self.seen.to(x.dtype))


class SharesWithItsCopy(Right):
    def __deepcopy__(self, memo: dict[int, Any]) -> "SharesWithItsCopy":
        twin = copy.copy(self)
        twin._parameters = dict(self._parameters)
        return twin


class OverflowsInHalf(Right):
    def forward(self, x: Tensor) -> Tensor:
        summed = (x * 64) * (x * 64) * 16
        return super().forward(x) + 0 * summed


class OverflowsInHalfChannelsLast(OverflowsInHalf):
    def forward(self, x: Tensor) -> Tensor:
        return Right.forward(self, x) if x.is_contiguous() else super().forward(x)


class AnyChannels(Right):
    """Cuts its weights to the channels that come, or repeats them."""

    def forward(self, x: Tensor) -> Tensor:
        times = -(-x.shape[1] // len(self.scale))
        scale = self.scale.repeat(times, 1, 1)[: x.shape[1]]
        shift = self.shift.repeat(times, 1, 1)[: x.shape[1]]
        return scale * standardized(x) + shift


class RefusesOddBatches(Right):
    def forward(self, x: Tensor) -> Tensor:
        if len(x) % 2:
            raise ValueError(f"{len(x)} images: expected an even number")
        return super().forward(x)


class OnlyContiguous(Right):
    def forward(self, x: Tensor) -> Tensor:
        flat = x.view(len(x), -1)
        return self.scale * standardized(flat, (1,)).view(x.shape) + self.shift
