"""The model of a cases file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from normbench.cases.case import Published
from normbench.cases.published import Configuration, published_figures
from normbench.cases.values import (
    NORM_SCHEMA,
    SCHEMA,
    BatchSizes,
    Norms,
    Number,
    OneOf,
    Percentage,
    Recipe,
    Strengths,
    Table,
    Text,
    Tier,
    Version,
    context_of,
    unexpected,
)
from normbench.models.networks import NETWORKS
from normbench.models.norms import norm_factory
from normbench.training.datasets import DATASETS


@dataclass(frozen=True)
class CasesContext:
    """What a cases file is held against: its ``folder``."""

    folder: Path


def _known_norm(norm: str) -> str:
    norm_factory(norm)
    return norm


def _figures(name: Any, info: ValidationInfo) -> dict[Configuration, Published]:
    if not isinstance(name, str) or not name.strip():
        raise unexpected(Text().words)
    context = context_of(info, CasesContext)
    try:
        return published_figures(context.folder / name, info.data.get("published_room", 0.0) / 100)
    except ValueError as error:
        raise ValueError(f"cannot read the published figures {name}: {error}") from error


Norm = Annotated[
    str,
    Text("a norm's name in quotes"),
    AfterValidator(_known_norm),
    WithJsonSchema(NORM_SCHEMA),
]
Figures = Annotated[
    Mapping[Configuration, Published],
    PlainValidator(_figures),
    WithJsonSchema({"type": "string"}),
]
Strength = Annotated[float, Number(0)]
BatchSize = Annotated[int, Number(1)]


class Regularizer(Table):
    """The strengths of L1 and L2; {} is none."""

    l1: Strength = Field(default=0.0, examples=[0.001])
    """The strength of L1, times the sum of all parameters' absolute values in the loss."""
    l2: Strength = Field(default=0.0, examples=[0.001])
    """The strength of L2, as SGD's weight decay."""


class Grid(Table):
    """A grid: each norm by each regularizer by each batch size is a case.

    A configuration that stands in several grids is a case of the first of them.
    """

    tier: Tier | None = Field(default=None, examples=["full"])
    """The tier of this grid, in place of the file's."""
    recipe: Recipe | None = Field(default=None, examples=["mnist-l1"])
    """The recipe of this grid, in place of the file's."""
    norm: list[Norm] = Field(min_length=1, examples=[["batch", "group:4"]])
    """The norms: known names, or package.module:factory for one of your own."""
    regularizer: list[Regularizer] = Field(min_length=1, examples=[[{}, {"l1": 0.001}]])
    """The regularizers: a table of l1 and l2 each, {} for none."""
    batch_size: list[BatchSize] = Field(min_length=1, examples=[[32, 64]])
    """The numbers of images in a training batch."""


class Target(Table):
    """A test accuracy, and the cases that it is for: those with a listed value of each key.

    The first target that fits a case is the case's; one without keys fits all.
    """

    test_accuracy: Percentage = Field(examples=[98.0])
    """What the mean test accuracy over a case's seeds must exceed, in percent."""
    norm: Norms | None = Field(default=None, examples=["batch"])
    """The norms of the cases: a name, or a list of them."""
    l1: Strengths | None = Field(default=None, examples=[0.001])
    """The L1 of the cases: a number, or a list of them."""
    l2: Strengths | None = Field(default=None, examples=[0.001])
    """The L2 of the cases: a number, or a list of them."""
    batch_size: BatchSizes | None = Field(default=None, examples=[64])
    """The batch sizes of the cases: a number, or a list of them."""


class CasesFile(Table):
    """Grids of training runs, and the accuracies that they must reach."""

    model_config = ConfigDict(title="normbench cases file")

    schema_: Version = Field(alias="schema", title="Schema", examples=[SCHEMA])
    """The version of this format."""
    tier: Tier = Field(examples=["standard"])
    """The smallest tier that these cases belong to."""
    dataset: Annotated[str, OneOf(tuple(DATASETS))] = Field(examples=["mnist"])
    """The data set to train on."""
    network: Annotated[str, OneOf(tuple(NETWORKS))] = Field(examples=["mnist"])
    """The network to train."""
    recipe: Recipe = Field(examples=["mnist"])
    """How to train, by the name of a recipe; a grid may name another one."""
    epochs: Annotated[int, Number(1)] = Field(examples=[8])
    """How many times each run sees its training images."""
    dropout: Annotated[float, Number(0, below=1)] = Field(default=0.0, examples=[0.03])
    """The probability of dropout in each block."""
    train_images: Annotated[int, Number(1)] | None = Field(default=None, examples=[10000])
    """How many training images each run takes, drawn by its seed; all by default."""
    seeds: Annotated[int, Number(1)] = Field(default=1, examples=[3])
    """The least number of runs of each case; --bench-seeds may ask for more."""
    published_room: Percentage = Field(default=0.0, examples=[0.1])
    """How far below its published figure a case may stay, in percentage points."""
    published: Figures | None = Field(default=None, examples=["published/mnist.csv"])
    """A CSV file of published figures, beside this file."""
    grid: list[Grid] = Field(min_length=1)
    """The grids of cases."""
    target: list[Target] = Field(min_length=1)
    """The targets, of which the first that fits a case is the case's."""

    @field_validator("train_images")
    @classmethod
    def _no_more_than_there_are(cls, images: int | None, info: ValidationInfo) -> int | None:
        dataset = info.data.get("dataset")
        if images is not None and dataset is not None:
            most = DATASETS[dataset].training_images
            if images > most:
                raise unexpected(f"{Number(1, most).words(whole=True)}, as {dataset!r} has")
        return images
