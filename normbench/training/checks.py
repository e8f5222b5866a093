"""What is checked before anything trains: images, a regularizer and a recipe against a network."""

import torch
from torch import nn

from normbench.models.factories import told
from normbench.models.networks import NETWORKS, build_network, check_training, seen_shape, takes
from normbench.models.regularizers import REGULARIZERS, check_regularizers
from normbench.models.sites import Shape
from normbench.spec import RunSpec, regularizer_strengths
from normbench.training.image_data import ImageData
from normbench.training.optimizers import UnknownOptimizer, build_optimizer
from normbench.training.recipes import OPTIMIZERS, Recipe, find_recipe
from normbench.training.steps import FlatParameters
from normbench.training.whitening import first_convolution


def shape_of(data: ImageData) -> Shape:
    """Return channels, height and width of the images."""
    channels, height, width = data.train_images.shape[1:]
    return channels, height, width


def check_images(spec: RunSpec, data: ImageData) -> None:
    """Raise ValueError where the data set has no images, or too few, to train on as ``spec`` says.

    The data set is whole: the part of it that is trained on is yet to be drawn.
    """
    channels, height, width = shape_of(data)
    if not takes(spec.network, (channels, height, width)):
        raise ValueError(
            f"the network {spec.network!r} cannot take the images of {spec.dataset!r}: expected "
            f"{NETWORKS[spec.network].needs()}, not {channels} x {height} x {width}; choose a "
            "network for this data set"
        )
    there = len(data.train_labels)
    count = spec.train_images or there
    fewest = find_recipe(spec.recipe).selection.images(count, spec.epochs - 1)
    if count > there:
        raise ValueError(
            f"train_images = {count}: expected at most {there}, the training images of "
            f"{spec.dataset!r}"
        )
    if spec.batch_size > fewest:
        raise ValueError(
            f"batch_size = {spec.batch_size}: expected at most {fewest}, the images that the run "
            f"trains on{'' if fewest == count else ' in the end'}"
        )


def check_regularizer(regularizer: str, network: str, shape: Shape, classes: int) -> None:
    """Raise ValueError for a regularizer that cannot be applied to a network.

    Builds the network without a norm, and leaves the global random numbers as they were.
    """
    strengths = regularizer_strengths(regularizer)
    if not strengths:
        return
    with torch.random.fork_rng(devices=[]):
        built = build_network(network, "none", shape=shape, classes=classes)
        check_regularizers(strengths, built)
        if strengths.keys() - REGULARIZERS.keys():
            # a network that was changed may train no more
            built.zero_grad()
            check_training(
                f"{network} with {regularizer}", built, seen_shape(network, shape), classes
            )


def check_recipe(recipe: str, network: str, shape: Shape, classes: int) -> None:
    """Raise ValueError for a recipe that is none, or that cannot train a network.

    For whitening and for an optimizer of a user's own, builds the network without a norm; leaves
    the global random numbers as they were.
    """
    found = find_recipe(recipe)
    size = min(seen_shape(network, shape)[1:])
    if found.augmentation.crop >= size:
        raise ValueError(
            f"crop = {found.augmentation.crop}: expected at most {size - 1}, as the network sees "
            f"{size} pixels a side"
        )
    own_optimizer = found.optimizer not in OPTIMIZERS
    if not (found.whitening or own_optimizer):
        return
    with torch.random.fork_rng(devices=[]):
        built = build_network(network, "none", shape=shape, classes=classes)
        if found.whitening:
            first_convolution(built, shape[0], seen_shape(network, shape)[1])
        if own_optimizer:
            _check_optimizer(found, built)


def _check_optimizer(found: Recipe, built: nn.Module) -> None:
    optimizer = build_optimizer(found, FlatParameters(built), found.learning_rate, 0.0)
    try:
        optimizer.step()
    except (Exception, SystemExit) as error:
        raise UnknownOptimizer(
            f"optimizer {found.optimizer!r} cannot take a step: {told(error)}; expected one whose "
            "step() needs nothing but gradients"
        ) from error
