"""The model of a cases file."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
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

from normbench.cases.case import AXES, Published
from normbench.cases.published import Configuration, published_figures
from normbench.cases.values import (
    NORM_SCHEMA,
    SCHEMA,
    BatchSizes,
    Number,
    OneOf,
    Percentage,
    Recipe,
    Several,
    Strengths,
    Table,
    Text,
    Tier,
    Version,
    condition,
    context_of,
    each_once,
    listed,
    mistakes,
    unexpected,
)
from normbench.models.networks import NETWORKS
from normbench.models.norms import norm_factory
from normbench.spec import regularizer_name
from normbench.training.data import known_dataset
from normbench.training.datasets import DATASETS, find_dataset


@dataclass(frozen=True)
class CasesContext:
    """What a cases file is held against: its ``folder``, and the root of the ``data``.

    ``norms`` are those that the command line adds to its grids.
    """

    folder: Path
    data: Path
    norms: tuple[str, ...] = ()


def _known_norm(norm: str) -> str:
    norm_factory(norm)
    return norm


def _known_dataset(dataset: str, info: ValidationInfo) -> str:
    known_dataset(dataset, context_of(info, CasesContext).data)
    return dataset


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
KnownNorms = Several[
    Annotated[
        str,
        Text("a name in quotes", several=True),
        AfterValidator(_known_norm),
        WithJsonSchema(NORM_SCHEMA),
    ]
]
Figures = Annotated[
    Mapping[Configuration, Published],
    PlainValidator(_figures),
    WithJsonSchema({"type": "string"}),
]
KnownDataset = Annotated[
    str,
    Text("a data set's name in quotes"),
    AfterValidator(_known_dataset),
    # an editor completes the names that are built in, and takes any other with a colon
    WithJsonSchema(
        {
            "type": "string",
            "anyOf": [{"enum": list(DATASETS)}, {"pattern": "[^:]:[^:]"}],
            "examples": ["folder:flowers", "mypackage.mymodule:load"],
        }
    ),
]
Strength = Annotated[float, Number(0)]
BatchSize = Annotated[int, Number(1)]
EachOnce = AfterValidator(each_once)


class Regularizer(Table):
    """The strengths of L1 and L2; {} is none."""

    l1: Strength = Field(default=0.0, examples=[0.001])
    """The strength of L1, times the sum of all parameters' absolute values in the loss."""
    l2: Strength = Field(default=0.0, examples=[0.001])
    """The strength of L2, as SGD's weight decay."""

    def __str__(self) -> str:
        return regularizer_name(self.l1, self.l2)


class Grid(Table):
    """A grid: each norm by each regularizer by each batch size is a case.

    A configuration that stands in several grids is a case of the first of them.
    """

    tier: Tier | None = Field(default=None, examples=["full"])
    """The tier of this grid, in place of the file's."""
    recipe: Recipe | None = Field(default=None, examples=["mnist-l1"])
    """The recipe of this grid, in place of the file's."""
    norm: Annotated[list[Norm], EachOnce] = Field(min_length=1, examples=[["batch", "group:4"]])
    """The norms: known names, or package.module:factory for one of your own."""
    regularizer: Annotated[list[Regularizer], EachOnce] = Field(
        min_length=1, examples=[[{}, {"l1": 0.001}]]
    )
    """The regularizers: a table of l1 and l2 each, {} for none."""
    batch_size: Annotated[list[BatchSize], EachOnce] = Field(min_length=1, examples=[[32, 64]])
    """The numbers of images in a training batch."""

    def configurations(self, norms: Sequence[str]) -> Iterator[Configuration]:
        """Yield the product of ``norms``, the regularizers and the batch sizes."""
        for norm, regularizer, size in itertools.product(norms, self.regularizer, self.batch_size):
            yield norm, regularizer.l1, regularizer.l2, size


class Target(Table):
    """A test accuracy, and the cases that it is for: those with a listed value of each key.

    The first target that fits a case is the case's; one without keys fits all.
    """

    test_accuracy: Percentage = Field(examples=[98.0])
    """What the mean test accuracy over a case's seeds must exceed, in percent."""
    norm: KnownNorms | None = Field(default=None, examples=["batch"])
    """The norms of the cases: a name, or a list of them."""
    l1: Strengths | None = Field(default=None, examples=[0.001])
    """The L1 of the cases: a number, or a list of them."""
    l2: Strengths | None = Field(default=None, examples=[0.001])
    """The L2 of the cases: a number, or a list of them."""
    batch_size: BatchSizes | None = Field(default=None, examples=[64])
    """The batch sizes of the cases: a number, or a list of them."""

    @property
    def values(self) -> dict[str, list[Any]]:
        """The values of each key that it says something of."""
        return {axis: found for axis in AXES if (found := getattr(self, axis)) is not None}

    def fits(self, configuration: Configuration) -> bool:
        has = dict(zip(AXES, configuration, strict=True))
        return all(has[axis] in values for axis, values in self.values.items())

    def without_case(self, configurations: Sequence[Configuration]) -> list[str]:
        """Return, a sentence each, which of its values fit no case of the grids."""
        unknown = [
            f"{condition(axis, value)} fits no case; the grids have {listed(known)}; "
            f"correct it, {'give it with --bench-norm, ' * (axis == 'norm')}or add it to a [[grid]]"
            for axis, known in zip(AXES, zip(*configurations, strict=True), strict=True)
            for value in self.values.get(axis, ())
            if value not in known
        ]
        if unknown:
            return unknown
        fitting = [configuration for configuration in configurations if self.fits(configuration)]
        if not fitting:
            return [f"no case of the grids has {self}; correct one of these, or add a [[grid]]"]
        return [
            f"{condition(axis, value)} fits no case that has the other keys' values; leave it out"
            for axis, found in zip(AXES, zip(*fitting, strict=True), strict=True)
            for value in self.values.get(axis, ())
            if value not in found
        ]

    def hidden_by(self, earlier: Sequence["Target"]) -> list[str]:
        """Return a sentence where one of the earlier targets fits whatever this one fits."""
        for number, other in enumerate(earlier, start=1):
            wider = all(
                axis in self.values and set(self.values[axis]) <= set(values)
                for axis, values in other.values.items()
            )
            if wider:
                return [f"[[target]] {number} fits all that this one does; put this one before it"]
        return []

    def __str__(self) -> str:
        return ", ".join(f"{axis} = {listed(values)}" for axis, values in self.values.items())


class CasesFile(Table):
    """Grids of training runs, and the accuracies that they must reach."""

    model_config = ConfigDict(title="normbench cases file")

    schema_: Version = Field(alias="schema", title="Schema", examples=[SCHEMA])
    """The version of this format."""
    tier: Tier = Field(examples=["standard"])
    """The smallest tier that these cases belong to."""
    dataset: KnownDataset = Field(examples=["mnist"])
    """The data set: a known name, folder:PATH, or package.module:function for one of your own."""
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

    @field_validator("grid")
    @classmethod
    def _strengths_of_names_of_their_own(cls, grids: list[Grid]) -> list[Grid]:
        """Refuse strengths that ids, which have six digits, would not tell apart."""
        for axis in ("l1", "l2"):
            strengths: dict[str, float] = {}
            for regularizer in (each for grid in grids for each in grid.regularizer):
                strength = getattr(regularizer, axis)
                first = strengths.setdefault(f"{strength:g}", strength)
                if first != strength:
                    raise ValueError(
                        f"{axis} = {first!r} and {axis} = {strength!r} would share the id "
                        f"{axis}:{strength:g}; leave one out, or let their first six digits differ"
                    )
        return grids

    @field_validator("target")
    @classmethod
    def _fitting_a_case(cls, targets: list[Target], info: ValidationInfo) -> list[Target]:
        """Refuse values that fit no case, which a weaker target would otherwise be for."""
        added = context_of(info, CasesContext).norms
        configurations = [
            configuration
            for grid in info.data.get("grid", ())
            for configuration in grid.configurations([*grid.norm, *added])
        ]
        if configurations:
            told: dict[tuple[int, ...], list[str]] = {
                (n,): target.without_case(configurations) or target.hidden_by(targets[:n])
                for n, target in enumerate(targets)
            }
            if any(told.values()):
                raise mistakes(told, targets)
        return targets

    @field_validator("train_images")
    @classmethod
    def _no_more_than_there_are(cls, images: int | None, info: ValidationInfo) -> int | None:
        dataset = info.data.get("dataset")
        if images is not None and dataset is not None:
            most = find_dataset(dataset).training_images
            if images > most:
                raise unexpected(f"{Number(1, most).words(whole=True)}, as {dataset!r} has")
        return images
