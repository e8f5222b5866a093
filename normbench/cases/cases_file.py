"""The model of a cases file."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from normbench.cases.case import Configuration, Published
from normbench.cases.published import published_figures
from normbench.cases.values import (
    NETWORK_SCHEMA,
    NORM_SCHEMA,
    SCHEMA,
    STRENGTHS_SCHEMA,
    BatchSizes,
    Number,
    Percentage,
    Recipe,
    Several,
    Strength,
    Strengths,
    StrengthsTable,
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
from normbench.models.networks import find_network
from normbench.models.norms import norm_factory
from normbench.models.regularizers import find_regularizers
from normbench.spec import regularizer_name, regularizer_strengths
from normbench.training.data import known_dataset
from normbench.training.datasets import DATASETS, find_dataset


@dataclass(frozen=True)
class CasesContext:
    """What a cases file is held against: its ``folder``, and the root of the ``data``.

    ``norms`` and ``regularizers`` are those that the command line adds to its grids.
    """

    folder: Path
    data: Path
    norms: tuple[str, ...] = ()
    regularizers: tuple[str, ...] = ()


def _known_norm(norm: str) -> str:
    norm_factory(norm)
    return norm


def _known_network(network: str) -> str:
    find_network(network)
    return network


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
Network = Annotated[
    str,
    Text("a network's name in quotes"),
    AfterValidator(_known_network),
    WithJsonSchema(NETWORK_SCHEMA),
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
BatchSize = Annotated[int, Number(1)]
EachOnce = AfterValidator(each_once)


class Regularizer(StrengthsTable):
    """The strengths of regularizers by their names, such as l1; {} is none."""

    __pydantic_extra__: dict[str, Strength]

    @model_validator(mode="after")
    def _that_can_be_built(self) -> Self:
        find_regularizers({name: value for name, value in self.strengths.items() if value})
        return self

    @property
    def name(self) -> str:
        return regularizer_name(self.strengths)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regularizer) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


class Grid(Table):
    """A grid: each norm by each regularizer by each batch size is a case.

    A configuration that stands in several grids is a case of the first of them.
    """

    tier: Tier | None = Field(default=None, examples=["full"])
    """The tier of this grid, in place of the file's."""
    recipe: Recipe | None = Field(default=None, examples=["mnist-l1"])
    """The recipe of this grid, or a table of one, in place of the file's."""
    norm: Annotated[list[Norm], EachOnce] = Field(min_length=1, examples=[["batch", "group:4"]])
    """The norms: known names, or package.module:factory for one of your own."""
    regularizer: Annotated[list[Regularizer], EachOnce] = Field(
        min_length=1, examples=[[{}, {"l1": 0.001}]]
    )
    """The regularizers: a table of names with their strengths each, {} for none."""
    batch_size: Annotated[list[BatchSize], EachOnce] = Field(min_length=1, examples=[[32, 64]])
    """The numbers of images in a training batch."""

    @property
    def regularizers(self) -> list[str]:
        return [regularizer.name for regularizer in self.regularizer]

    def configurations(
        self, norms: Sequence[str], regularizers: Sequence[str]
    ) -> Iterator[Configuration]:
        """Yield the product of ``norms``, ``regularizers`` and the batch sizes."""
        yield from itertools.starmap(
            Configuration, itertools.product(norms, regularizers, self.batch_size)
        )

    def has(self, configuration: Configuration) -> bool:
        """Tell whether the grid has a configuration by itself, not by the command line."""
        own_norm = configuration.norm in self.norm
        return own_norm and configuration.regularizer in self.regularizers


class Target(StrengthsTable):
    """A test accuracy, and the cases that it is for: those with a listed value of each key.

    A regularizer's name is a key as well. The first target that fits a case is the case's; one
    without keys fits all.
    """

    __pydantic_extra__: dict[str, Strengths]
    strength_schema = STRENGTHS_SCHEMA

    test_accuracy: Percentage = Field(examples=[98.0])
    """What the mean test accuracy over a case's seeds must exceed, in percent."""
    norm: KnownNorms | None = Field(default=None, examples=["batch"])
    """The norms of the cases: a name, or a list of them."""
    batch_size: BatchSizes | None = Field(default=None, examples=[64])
    """The batch sizes of the cases: a number, or a list of them."""

    @property
    def values(self) -> dict[str, list[Any]]:
        """The values of each key that it says something of."""
        own = {"norm": self.norm, "batch_size": self.batch_size}
        found = {"norm": own["norm"], **self.strengths, "batch_size": own["batch_size"]}
        return {key: values for key, values in found.items() if values is not None}

    def fits(self, configuration: Configuration) -> bool:
        return all(configuration.value(key) in values for key, values in self.values.items())

    def names(self, configuration: Configuration) -> bool:
        """Tell whether it is for this norm, or these regularizers, and not for any."""
        strengths = regularizer_strengths(configuration.regularizer)
        return self.norm is not None or any(name in self.strengths for name in strengths)

    def without_case(self, configurations: Sequence[Configuration]) -> list[str]:
        """Return, a sentence each, which of its values fit no case of the grids."""
        unknown = [
            f"{condition(key, value)} fits no case; the grids have {listed(known)}; "
            f"correct it, {'give it with --bench-norm, ' * (key == 'norm')}or add it to a [[grid]]"
            for key, values in self.values.items()
            for known in ([each.value(key) for each in configurations],)
            for value in values
            if value not in known
        ]
        if unknown:
            return unknown
        fitting = [configuration for configuration in configurations if self.fits(configuration)]
        if not fitting:
            return [f"no case of the grids has {self}; correct one of these, or add a [[grid]]"]
        return [
            f"{condition(key, value)} fits no case that has the other keys' values; leave it out"
            for key, values in self.values.items()
            for value in values
            if value not in [each.value(key) for each in fitting]
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
    network: Network = Field(examples=["mnist"])
    """The network to train: a known name, or package.module:factory for one of your own."""
    recipe: Recipe = Field(examples=["mnist"])
    """How to train: the name of a recipe, or a table of one; a grid may have another one."""
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
    target: list[Target] = Field(default=[])
    """The targets, of which the first that fits a case is the case's; without one it has none."""

    @field_validator("target")
    @classmethod
    def _fitting_a_case(cls, targets: list[Target], info: ValidationInfo) -> list[Target]:
        """Refuse values that fit no case, which a weaker target would otherwise be for."""
        added = context_of(info, CasesContext)
        configurations = [
            configuration
            for grid in info.data.get("grid", ())
            for configuration in grid.configurations(
                [*grid.norm, *added.norms], [*grid.regularizers, *added.regularizers]
            )
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
