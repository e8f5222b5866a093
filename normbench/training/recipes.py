"""Recipes: how a network is trained, chosen on a held-out part of the training set."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Augmentation:
    """Random changes of each training image, drawn uniformly from both signs.

    ``rotation`` is in degrees, ``shift`` in pixels; ``scale`` and ``shear`` are fractions: these
    four are one affine map. ``crop`` is in whole pixels, over a mirrored border, and ``flip``
    mirrors every other image left to right.
    """

    rotation: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    crop: int = 0
    flip: bool = False

    @property
    def affine(self) -> bool:
        return any((self.rotation, self.shift, self.scale, self.shear))


@dataclass(frozen=True)
class Selection:
    """Which images an epoch trains on: all, or those that the network knows least.

    The first ``after`` epochs have all images. Each later one has the ``share`` of them, from 0 to
    1, that had the greatest losses when they were last trained on: cross-entropies, of the image
    as it was augmented then, without label smoothing. The others keep theirs meanwhile.

    Source: after Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers, 2019,
    with stale losses. There chance has a part in it: the greater a loss, the likelier is its image.
    """

    share: float = 1.0
    after: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share = {self.share!r}: expected a part of the images, up to 1")
        if self.after < 1:
            raise ValueError(f"after = {self.after!r}: expected 1 or more, as losses are of epochs")

    def images(self, count: int, epoch: int) -> int:
        """Return on how many of ``count`` images an epoch trains; the first is epoch 0."""
        # 0.07 * 100 is a little more than 7
        return count if epoch < self.after else math.ceil(self.share * count - 1e-9)


# What the learning rate of a recipe is multiplied with at another batch size than 64.
SCALINGS: dict[str, Callable[[int], float]] = {
    "linear": lambda batch_size: batch_size / 64,
    "square-root": lambda batch_size: math.sqrt(batch_size / 64),
    "none": lambda _: 1.0,
}
SCHEDULES = ("one-cycle", "cosine", "linear", "constant")
OPTIMIZERS = ("sgd", "muon", "adamw")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: by default, SGD under a one-cycle learning rate.

    ``learning_rate`` is the peak at batch size 64. ``scaling``, one of SCALINGS, says how it goes
    with the batch size: linearly (Goyal et al., Accurate, Large Minibatch SGD, 2017), by its
    square root (Krizhevsky, One Weird Trick, 2014), or not at all. ``schedule`` is one of
    SCHEDULES: a cycle of two half cosines (Smith and Topin, Super-Convergence, 2018), or a linear
    way up and then half a cosine (Loshchilov and Hutter, SGDR, 2017) or a line down to 0, or none.
    The way up takes ``warmup``, a fraction of all steps.

    ``optimizer`` is ``sgd``, with Nesterov's ``momentum``; ``muon``, the same but for kernels,
    whose updates it orthogonalizes, at 0.15 of the learning rate and with a decoupled weight decay
    of 0.1; ``adamw``, whose first beta the momentum is; or ``package.module:factory``, which is
    called with the named parameters and the learning rate, and returns a torch.optim.Optimizer.
    ``gradient_clipping`` is the largest norm of the gradient of the loss, 0 for none (Pascanu,
    Mikolov and Bengio, 2013).

    ``selection`` says on which of the images an epoch trains. With ``whitening``, the network's
    first convolution begins with the principal directions of the images' patches. With
    ``test_time_flip``, the logits of a test image are the mean of its own and its mirror image's.
    """

    learning_rate: float
    momentum: float = 0.9
    warmup: float = 0.3
    label_smoothing: float = 0.0
    augmentation: Augmentation = Augmentation()
    optimizer: str = "sgd"
    schedule: str = "one-cycle"
    scaling: str = "linear"
    gradient_clipping: float = 0.0
    selection: Selection = Selection()
    whitening: bool = False
    test_time_flip: bool = False

    def peak_learning_rate(self, batch_size: int) -> float:
        return self.learning_rate * SCALINGS[self.scaling](batch_size)

    def steps(self, images: int, batch_size: int, epochs: int) -> int:
        """Return the steps of a run on so many images; an incomplete last batch is left out."""
        return sum(self.selection.images(images, e) // batch_size for e in range(epochs))

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as the table that a cases file would have."""
        return dataclasses.asdict(self)


# The tables within a recipe's table.
PARTS: dict[str, type[Augmentation | Selection]] = {
    "augmentation": Augmentation,
    "selection": Selection,
}

AFFINE = Augmentation(rotation=10, shift=2, scale=0.1, shear=0.1)
CROP_AND_FLIP = Augmentation(crop=2, flip=True)
# Degrees; one twentieth of 28 pixels; fractions. The tables' jitter of colours is left out.
PUBLISHED = Augmentation(rotation=7, shift=1.4, scale=0.05, shear=0.0875)
LEAST_KNOWN = Selection(share=0.4, after=2)

RECIPES: dict[str, Recipe] = {
    "digits": Recipe(learning_rate=0.05, augmentation=Augmentation(shift=0.5)),
    # At a peak of 0.15 group:2 with L2 lost its way at batch size 128 in 2 of 2 held-out runs.
    "mnist": Recipe(learning_rate=0.1, label_smoothing=0.1, augmentation=AFFINE),
    # L1 pulls each weight by learning_rate * l1 a step however small it is, so that a fast recipe
    # shakes the small weights to death: with l1 = 0.01, held-out accuracy fell from 98.4 % at a
    # learning rate of 0.001 to 96.9 % at 0.01 and to chance at 0.1 (group:2, one seed each).
    "mnist-l1": Recipe(learning_rate=0.003, warmup=0.1, augmentation=AFFINE),
    # Of the published tables, which name a momentum of 0.7: OneCycleLR lets it go from 0.95 to 0.85
    # and back instead, unless it is told not to. Here it is 0.9 all the time, and Nesterov's.
    "mnist-textbook": Recipe(learning_rate=0.015, augmentation=PUBLISHED),
    # At half the cost of mnist and mnist-l1: after two epochs of all images, five of the two fifths
    # that are known least. Whitening makes up for what is left out (docs/recipes.md).
    "mnist-fast": Recipe(
        learning_rate=0.1,
        label_smoothing=0.05,
        augmentation=AFFINE,
        selection=LEAST_KNOWN,
        whitening=True,
    ),
    "mnist-fast-l1": Recipe(
        learning_rate=0.003, warmup=0.1, augmentation=AFFINE, selection=LEAST_KNOWN, whitening=True
    ),
    # For batch sizes from 2 to 256 at equal epochs: at a peak of 0.05, layer normalization reached
    # 96.8 % in the 234 steps that batches of 256 leave, at 0.025 98.3 % (docs/recipes.md).
    "mnist-batch-size": Recipe(learning_rate=0.025, label_smoothing=0.1, augmentation=AFFINE),
    # Clothes have a left and a right, and fill the whole image (docs/recipes.md).
    "fashion-mnist": Recipe(
        learning_rate=0.1, label_smoothing=0.1, augmentation=Augmentation(crop=1, flip=True)
    ),
    "cifar10": Recipe(
        learning_rate=0.1, warmup=0.2, label_smoothing=0.1, augmentation=CROP_AND_FLIP
    ),
    # The most that was found for 20 epochs and three times the cost of a run of cifar10. Muon's
    # steps of a kernel are of one length, whatever L1 and L2 add, and it decays them by itself:
    # regularizers are compared by cifar10 alone.
    "cifar10-best": Recipe(
        learning_rate=0.1,
        warmup=0.2,
        label_smoothing=0.1,
        augmentation=CROP_AND_FLIP,
        optimizer="muon",
        test_time_flip=True,
    ),
    # As for MNIST: in the 312 steps that batches of 256 leave, layer normalization reached 52.2 %
    # at a peak of 0.05 and 57.6 % at 0.025.
    "cifar10-batch-size": Recipe(
        learning_rate=0.025, warmup=0.2, label_smoothing=0.1, augmentation=CROP_AND_FLIP
    ),
}


# Of a recipe's spelling: the built-in one that a table begins with.
FROM = "from"


def recipe_spelling(table: Mapping[str, Any]) -> str:
    """Spell a recipe that is given as a table: a built-in one's name, or the table as JSON.

    ``from`` names the built-in recipe that the other keys change, an augmentation's one by one.
    Equal recipes that begin with the same one are spelled alike. Raises ValueError for keys or
    names that are none.
    """
    name = table.get(FROM)
    changed = _made({k: v for k, v in table.items() if k != FROM}, name)
    if name is not None and changed == find_recipe(name):
        return str(name)
    begun = Recipe(learning_rate=math.nan) if name is None else find_recipe(name)
    kept = {} if name is None else {FROM: name}
    return json.dumps(kept | _differences(changed, begun), sort_keys=True)


def _differences(changed: Any, begun: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, and of those in it, that differ from another one's."""
    found: dict[str, Any] = {}
    for name, value in vars(changed).items():
        if value != (before := getattr(begun, name)):
            nested = dataclasses.is_dataclass(value)
            found[name] = _differences(value, before) if nested else value
    return found


def recipe_table(name: str) -> str | dict[str, Any]:
    """Return what recipe_spelling spells so, as a cases file has it: a name or a table."""
    return dict(json.loads(name)) if name.startswith("{") else name


def find_recipe(name: str) -> Recipe:
    """Return the recipe that recipe_spelling spells so; raises ValueError where there is none."""
    table = recipe_table(name)
    if isinstance(table, dict):
        return _made({k: v for k, v in table.items() if k != FROM}, table.get(FROM))
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def _made(changes: Mapping[str, Any], name: str | None) -> Recipe:
    begun = {} if name is None else find_recipe(name).to_dict()
    try:
        parts = {
            part: kind(**{**begun.get(part, {}), **changes.get(part, {})})
            for part, kind in PARTS.items()
        }
        return Recipe(**{**begun, **changes, **parts})
    except TypeError as error:
        raise ValueError(f"a recipe cannot be made of {dict(changes)}: {error}") from error
