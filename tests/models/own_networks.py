"""Networks of a user's own, right ones and wrong ones, for the tests of what trains them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
Shape = tuple[int, int, int]


class TinyResNet(nn.Module):
    """Two convolutions, each with a norm, the second one residual."""

    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(shape[0], 8, 3, stride=2, padding=1)
        self.first = norm(8)
        self.inner = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), norm(8), nn.ReLU())
        self.classifier: nn.Module = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.first(self.stem(images)))
        features = features + self.inner(features)
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits


class Cropped(TinyResNet):
    """Sees the middle 6 x 6 pixels."""

    image_size = 6


class Wide(TinyResNet):
    """Asks for more than the digits have."""

    image_size = 24


class Dropping(TinyResNet):
    """Has a rate of dropout."""

    def __init__(self, norm: Norm, shape: Shape, classes: int, dropout: float) -> None:
        super().__init__(norm, shape, classes)
        self.classifier = nn.Sequential(nn.Dropout(dropout), self.classifier)


class Sized(TinyResNet):
    """Is called with other names."""

    def __init__(self, norm: Norm, size: int) -> None:
        super().__init__(norm, (1, size, size), 10)


class Raising(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(norm, shape, classes)
        raise RuntimeError("no such\nthing")


def text(norm: Norm, shape: Shape, classes: int) -> str:
    return "a network"


number = 7


class Changed(TinyResNet, ABC):
    """Returns something else of the logits."""

    @abstractmethod
    def changed(self, logits: Tensor) -> Any: ...

    def forward(self, images: Tensor) -> Any:
        return self.changed(super().forward(images))


class FewClasses(Changed):
    def changed(self, logits: Tensor) -> Any:
        return logits[:, :3]


class Evaluated(Changed):
    """Answers for one image alone at evaluation."""

    def changed(self, logits: Tensor) -> Any:
        return logits if self.training else logits[:1]


class Flat(Changed):
    def changed(self, logits: Tensor) -> Any:
        return logits.flatten()


class Listed(Changed):
    def changed(self, logits: Tensor) -> Any:
        return [logits]


class Double(Changed):
    def changed(self, logits: Tensor) -> Any:
        return logits.double()


class NotANumber(Changed):
    def changed(self, logits: Tensor) -> Any:
        return logits / 0


class Detached(Changed):
    def changed(self, logits: Tensor) -> Any:
        return logits.detach()


class InfiniteGradient(Changed):
    def changed(self, logits: Tensor) -> Any:
        return (logits - logits.detach()).abs().sqrt()


class ZeroBranch(TinyResNet):
    """Adds nothing in its branch as it begins."""

    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(norm, shape, classes)
        self.last = nn.Conv2d(8, 8, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.first(self.stem(images)))
        features = features + self.last(self.inner(features))
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits


class Centred(Changed):
    def changed(self, logits: Tensor) -> Any:
        return logits - logits.mean(0) / 2


class Untrained(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(lambda _: nn.Identity(), shape, classes)
        self.first = norm(8)
        self.requires_grad_(False)


class InDouble(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(norm, shape, classes)
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))


class Lazy(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(norm, shape, classes)
        self.classifier = nn.LazyLinear(classes)


class MadeInForward(TinyResNet):
    def forward(self, images: Tensor) -> Tensor:
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(torch.ones(1))
        return super().forward(images) * self.scale


class WithoutNorm(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        del norm
        super().__init__(nn.BatchNorm2d, shape, classes)


class Unused(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(norm, shape, classes)
        self.second = norm(8)


class Hidden(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(norm, shape, classes)
        self.hidden = [norm(8)]


class WrongChannels(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(lambda channels: norm(2 * channels), shape, classes)


class OfVectors(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(norm, shape, classes)
        self.classifier = nn.Sequential(norm(8), nn.Linear(8, classes))


class Shared(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(norm, shape, classes)
        self.inner = nn.Sequential(nn.MaxPool2d(2), self.first)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.inner(self.first(self.stem(images))).mean((2, 3)))
        return logits


class InText(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(lambda channels: norm(str(channels)), shape, classes)  # type: ignore[arg-type]  # wrong on purpose


class Viewing(TinyResNet):
    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(norm, shape, classes)
        self.classifier = nn.Linear(8 * (shape[1] // 2) * (shape[2] // 2), classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(self.stem(images))
        logits: Tensor = self.classifier(features.view(len(features), -1))
        return logits


class Fickle(TinyResNet):
    """Is built with more norms each time."""

    built = 0

    def __init__(self, norm: Norm, shape: Shape, classes: int) -> None:
        super().__init__(norm, shape, classes)
        type(self).built += 1
        self.more = nn.Sequential(*(norm(8) for _ in range(self.built)))

    def forward(self, images: Tensor) -> Tensor:
        features = self.more(self.first(self.inner(self.stem(images))))
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits
