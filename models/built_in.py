"""What a network that is known by a name says of itself."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn

from .sites import Shape

# The classes of a network that nothing is said of.
CLASSES = 10


class BuiltInNetwork(nn.Module, ABC):
    """A network that is known by a name.

    Maps images of shape ``(batch, *shape)`` to logits of shape ``(batch, classes)``.
    """

    parameter_limit: ClassVar[int]

    @classmethod
    @abstractmethod
    def made_for(cls) -> Shape:
        """Return the shape of images that it is built for where none is given."""

    @classmethod
    @abstractmethod
    def takes(cls, channels: int, size: int) -> bool:
        """Tell whether the network takes square images."""

    @classmethod
    @abstractmethod
    def needs(cls) -> str:
        """Say which images the network takes."""

    @classmethod
    def sees(cls, shape: Shape) -> Shape:
        """Return the shape of the middle of an image that the network sees; all by default."""
        return shape

    @classmethod
    @abstractmethod
    def definition(cls, shape: Shape, classes: int) -> dict[str, Any]:
        """Describe the architecture for such images in builtin types."""
