"""The data side: the plain implementation against hand computations, and faults that it tells."""

import dataclasses

import numpy as np
import pytest
import torch

from normbench.check.batches import (
    affine_map,
    bilinear,
    changed,
    cropped,
    digits_parts,
    drawn_epoch,
    expected_epochs,
    images_of,
    loaded,
    order_faults,
    tolerance,
    training_faults,
)
from normbench.check.figures import figure_faults
from normbench.check.recording import Recording, record
from normbench.check.trace import random_data, trace_data
from normbench.check.trace_record import trace_spec, traced_as
from normbench.training import trainer
from normbench.training.augmentation import augment
from normbench.training.recipes import AFFINE, CROP_AND_FLIP, Augmentation, recipe_spelling
from normbench.training.trainer import greatest


def faults(recording: Recording) -> list[str]:
    train, _ = digits_parts()
    spec, recipe = recording.training.spec, recording.training.recipe
    epochs = expected_epochs(train, spec, recipe, 8, steps=recording.steps)
    return list(training_faults(recording, epochs, 8))


def recorded(seed: int = 0, recipe: str = "digits") -> Recording:
    spec = dataclasses.replace(trace_spec("digits", "layer"), recipe=recipe, epochs=3)
    return record(traced_as(spec).with_seed(seed), trace_data("digits"))


def test_the_digits_are_those_of_scikit_learn() -> None:
    train, test = digits_parts()
    assert (len(train.labels), len(test.labels)) == (1348, 449)
    # the first of them are 0, 1, 2, 3, 4, ..., every fourth a test image
    assert train.labels[:6].tolist() == [0, 1, 2, 4, 5, 6]
    assert test.labels[:2].tolist() == [3, 7]
    assert train.images[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert list(loaded(trace_data("digits"), train, test)) == []


def test_a_pixel_between_four_is_their_mean_and_zero_outside() -> None:
    image = np.array([[[1.0, 2.0], [3.0, 6.0]]])
    found = bilinear(image, np.array([[0.5, -0.5]]), np.array([[0.5, 0.0]]))
    assert found.tolist() == [[[3.0, 0.5]]]


def test_a_quarter_turn_turns_the_image() -> None:
    image = np.arange(9.0).reshape(1, 3, 3)
    numbers = np.array([1.0, 0, 0, 0, 0, 0])
    turned = affine_map(image, numbers, Augmentation(rotation=90), 3)
    # at (x, y) it reads (-y, x): the top row is the right column, from above
    np.testing.assert_allclose(turned[0], np.rot90(image[0]), atol=1e-12)


def test_a_shift_of_a_pixel_moves_the_image() -> None:
    image = np.arange(9.0).reshape(1, 3, 3)
    moved = affine_map(image, np.array([0, 0, 0, 0, 1.0, 0]), Augmentation(shift=1), 3)
    assert moved[0].tolist() == [[1, 2, 0], [4, 5, 0], [7, 8, 0]]


def test_a_crop_has_the_mirrored_border() -> None:
    image = np.arange(9.0).reshape(1, 3, 3)
    assert cropped(image, 1, 0, 1)[0].tolist() == [[3, 4, 5], [0, 1, 2], [3, 4, 5]]
    assert cropped(image, 1, 1, 2)[0].tolist() == [[1, 2, 1], [4, 5, 4], [7, 8, 7]]


@pytest.mark.parametrize(
    ("augmentation", "size", "kept"),
    [(AFFINE, 28, 24), (Augmentation(shift=0.5), 8, 8), (CROP_AND_FLIP, 32, 32)],
)
def test_the_engine_changes_images_as_the_plain_implementation(
    augmentation: Augmentation, size: int, kept: int
) -> None:
    images = torch.randint(256, (40, 2, size, size), generator=torch.Generator().manual_seed(3))
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    draws = drawn_epoch(40, 8, augmentation, generators[0])
    order = torch.randperm(40, generator=generators[1])
    assert draws.order.tolist() == order.tolist()
    found = augment(images[order].float(), augmentation, kept, generators[1])
    for place, index in enumerate(order.tolist()):
        expected = changed(images[index].double().numpy(), draws, place, augmentation, kept)
        assert abs(found[place].numpy() - expected).max() / 255 < tolerance(size, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_right_batches_are_not_blamed(seed: int) -> None:
    assert faults(recorded(seed)) == []


SELECTING = recipe_spelling({"from": "digits", "selection": {"share": 0.3, "after": 2}})


def test_the_images_that_a_recipe_selects_are_not_blamed_and_others_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording = recorded(recipe=SELECTING)
    # of 67 images, 21 fill five batches of 4
    assert len(recording.steps) == 16 + 16 + 5
    assert faults(recording) == []
    monkeypatch.setattr(trainer, "greatest", lambda losses, count: greatest(-losses, count))
    assert len(faults(recorded(recipe=SELECTING))) > 20


def test_a_pixel_that_is_off_is_told() -> None:
    recording = recorded()
    recording.steps[12].images[3, 0, 2, 5] += 1e-3
    (told,) = faults(recording)
    assert told.startswith("step 13, image 3: the pixel (0, 2, 5) is off by 0.001")


def test_an_epoch_without_its_last_batch_is_told() -> None:
    recording = recorded()
    recording.steps.pop()
    assert "seen 49 steps" in faults(recording)[0]


def test_orders_have_each_image_once_and_are_new() -> None:
    shuffled = (3, 1, 0, 2, 4, 9, 8, 7, 5, 6)
    assert list(order_faults([shuffled, shuffled[::-1]], 10)) == []
    assert "seen image 3 twice" in next(order_faults([(3, 3, 1)], 10))
    assert "seen a sorted one" in next(order_faults([tuple(range(10))], 10))
    assert "seen that of epoch 1" in next(order_faults([shuffled, shuffled], 10))


def test_images_of_another_order_or_number_are_told() -> None:
    data = random_data("mnist")
    train = images_of(data.train_images, data.train_labels)
    test = images_of(data.test_images, data.test_labels)
    assert list(loaded(data, train, test)) == []
    mixed = dataclasses.replace(data, test_images=data.test_images.flip(0))
    assert list(loaded(mixed, train, test)) == [
        "test images: 24 of 24 have other pixels than their source"
    ]
    fewer = dataclasses.replace(data, train_images=data.train_images[:-1])
    assert "expected a shape of (210, 1, 28, 28), seen (209" in next(loaded(fewer, train, test))


def test_reported_figures_are_those_of_the_logits() -> None:
    recording = recorded()
    _, test = digits_parts()
    assert list(figure_faults(recording, test)) == []


@pytest.mark.parametrize("figure", ["test_accuracy", "test_loss", "train_accuracy", "train_loss"])
def test_a_figure_of_the_last_epoch_that_is_another_epochs_is_told(figure: str) -> None:
    recording = recorded()
    first, last = recording.result.epochs[0], recording.result.epochs[-1]
    other = dataclasses.replace(last, **{figure: getattr(first, figure)})
    result = dataclasses.replace(recording.result, epochs=(*recording.result.epochs[:-1], other))
    _, test = digits_parts()
    told = list(figure_faults(Recording(result, recording.training), test))
    assert any(figure in line for line in told)


def test_a_confusion_that_lacks_an_image_is_told() -> None:
    recording = recorded()
    rows = [list(row) for row in recording.result.confusion]
    rows[3][3] -= 1
    result = dataclasses.replace(recording.result, confusion=tuple(map(tuple, rows)))
    _, test = digits_parts()
    (told,) = figure_faults(Recording(result, recording.training), test)
    assert told.startswith("confusion: expected ")
