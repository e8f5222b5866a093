"""The model of a claims file."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from normbench.cases.case import Configuration
from normbench.cases.values import (
    NORM_SCHEMA,
    SCHEMA,
    STRENGTHS_SCHEMA,
    BatchSizes,
    Norms,
    Number,
    Percentage,
    Strengths,
    StrengthsTable,
    Table,
    Text,
    Tier,
    Verdicts,
    Version,
    condition,
    context_of,
    mistakes,
    one_of,
    unexpected,
)
from normbench.models.norms import NormSite, norm_factory
from normbench.results import JUDGED
from normbench.spec import regularizer_strengths

# The axes of which nothing is assumed where a claim leaves them out.
_NEEDED = {"norm", "batch_size"}


@dataclass(frozen=True)
class ClaimsContext:
    """What a claims file is held against: the ``grids`` that there are, by name.

    ``configurations`` are those of each grid that the file names; ``names`` are those of the
    claims that were read so far.
    """

    grids: Sequence[str]
    configurations: Mapping[str, Collection[Configuration]]
    names: set[str] = field(default_factory=set)


def _unique_name(name: str, info: ValidationInfo) -> str:
    context = context_of(info, ClaimsContext)
    if name in context.names:
        raise ValueError(f"two claims are called {name!r}; rename one")
    context.names.add(name)
    return name


def _known_grid(grid: str, info: ValidationInfo) -> str:
    context = context_of(info, ClaimsContext)
    if grid not in context.grids:
        raise unexpected(one_of(tuple(context.grids)))
    return grid


class Side(StrengthsTable):
    """Configurations: the product of the values, each of which may be a list.

    A regularizer's name is a key as well; what is not named has a strength of 0.
    """

    __pydantic_extra__: dict[str, Strengths]
    strength_schema = STRENGTHS_SCHEMA

    norm: Norms | None = Field(default=None, examples=["batch"])
    """A norm, or a list of them."""
    batch_size: BatchSizes | None = Field(default=None, examples=[64])
    """A batch size, or a list of them."""

    _axes: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _in_the_files_order(cls, value: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Remember the order of the keys, in which contrasts come and tables show them."""
        side = read(value)
        side._axes = tuple(value)
        return side

    @property
    def axes(self) -> set[str]:
        return set(self._axes)

    @property
    def product(self) -> Iterator[dict[str, Any]]:
        values = (self.strengths.get(axis) or getattr(self, axis) for axis in self._axes)
        for chosen in itertools.product(*values):
            yield dict(zip(self._axes, chosen, strict=True))


class ContrastTable(Table):
    """A difference between test accuracies: that of first less that of second.

    A list stands for each of its values: each of these contrasts must hold.
    """

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["more_than", "within"]}})

    at: Side = Field(default_factory=lambda: Side.model_validate({}), examples=[{"batch_size": 64}])
    """What both sides have in common."""
    first: Side = Field(examples=[{"norm": "batch"}])
    """The configurations that are compared."""
    second: Side = Field(examples=[{"norm": ["group:2", "layer"]}])
    """The configurations that they are compared with."""
    more_than: Annotated[float, Number(-100, 100)] | None = Field(default=None, examples=[0.5])
    """How many percentage points the difference exceeds; 0 by default."""
    within: Percentage | None = Field(default=None, examples=[0.3])
    """How many percentage points the difference lies within, on either side of 0."""

    @field_validator("first", "second")
    @classmethod
    def _whole_configuration(cls, side: Side, info: ValidationInfo) -> Side:
        at = info.data.get("at")
        if at is not None and (lacking := _NEEDED - side.axes - at.axes):
            told = f"is missing on one side; add it to {info.field_name}, or to at for both sides"
            raise mistakes({(): [f"{axis} {told}" for axis in sorted(lacking)]}, side)
        return side

    @field_validator("within")
    @classmethod
    def _only_one_of_two(cls, points: float | None, info: ValidationInfo) -> float | None:
        if points is not None and info.data.get("more_than") is not None:
            raise ValueError("expected more_than or within, not both; leave one out")
        return points

    @property
    def pairs(self) -> Iterator[tuple[Configuration, Configuration]]:
        """The configurations that are compared: each of at, by each of first, by each of second."""
        parts = (self.at.product, self.first.product, self.second.product)
        for at, first, second in itertools.product(*parts):
            yield Configuration.of_values(at | first), Configuration.of_values(at | second)


class ClaimTable(Table):
    """What every claim has."""

    name: Annotated[str, Text(), AfterValidator(_unique_name)] = Field(examples=["my-claim"])
    """A name of its own, by which -k selects the claim."""
    statement: Annotated[str, Text()] = Field(examples=["Batch beats layer normalization."])
    """What is claimed, in a sentence."""
    source: Annotated[str, Text()] = Field(examples=["Wu and He, 2018, figure 1"])
    """Who said so, and where."""
    tier: Tier = Field(examples=["full"])
    """The smallest tier that judges the claim."""
    expected: Verdicts = Field(default=list(map(str, JUDGED)), examples=["holds"])
    """The verdict on record, or a list of those that are no surprise; any by default."""


class ContrastClaim(ClaimTable):
    """A claim about test accuracies, for which a grid's configurations are trained."""

    grid: Annotated[str, Text(), AfterValidator(_known_grid)] = Field(examples=["mnist"])
    """The cases file, by its name without .toml, that has the configurations."""
    seeds: Annotated[int, Number(2)] = Field(examples=[5])
    """The least number of runs of each configuration; --bench-seeds may ask for more."""
    contrast: list[ContrastTable] = Field(min_length=1)
    """The differences that the claim stands or falls with."""

    @field_validator("contrast")
    @classmethod
    def _of_the_grid(
        cls, contrasts: list[ContrastTable], info: ValidationInfo
    ) -> list[ContrastTable]:
        context = context_of(info, ClaimsContext)
        grid = info.data.get("grid")
        if grid is None:
            return contrasts
        told: dict[tuple[int, ...], list[str]] = {}
        for number, contrast in enumerate(contrasts):
            sides = dict.fromkeys(itertools.chain.from_iterable(contrast.pairs))
            lacking = [side for side in sides if side not in context.configurations[grid]]
            told[(number,)] = [_no_such_case(grid, side) for side in lacking]
        if any(told.values()):
            raise mistakes(told, contrasts)
        return contrasts


def _no_such_case(grid: str, configuration: Configuration) -> str:
    strengths = regularizer_strengths(configuration.regularizer)
    spelled = ", ".join(
        [
            condition("norm", configuration.norm),
            *(itertools.starmap(condition, strengths.items()) if strengths else ["no regularizer"]),
            condition("batch_size", configuration.batch_size),
        ]
    )
    return f"the grid {grid!r} has no case with {spelled}; add it to a [[grid]] there"


class MeansClaim(ClaimTable):
    """A claim about how many means norms compute, for which nothing is trained."""

    images: Annotated[int, Number(2)] = Field(examples=[3])
    """The number of images in the batch."""
    channels: Annotated[int, Number(2)] = Field(examples=[8])
    """The number of the layer's channels."""
    means: dict[str, Annotated[int, Number(1)]] = Field(
        min_length=1,
        examples=[{"batch": 8, "group:4": 12}],
        json_schema_extra={"propertyNames": NORM_SCHEMA},
    )
    """How many means each norm computes, by the norms' names."""

    @field_validator("means")
    @classmethod
    def _of_norms_that_fit(cls, means: dict[str, int], info: ValidationInfo) -> dict[str, int]:
        told = []
        for norm in means:
            try:
                factory = norm_factory(norm)
                if channels := info.data.get("channels"):
                    factory(NormSite("probe", channels, height=2, width=2))
            except ValueError as error:
                told.append(str(error))
        if told:
            raise mistakes({(): told}, means)
        return means


def _kind_of_claim(claim: Any) -> str:
    keys = claim.keys() if isinstance(claim, dict) else set()
    of_means, of_contrasts = {"images", "channels", "means"}, {"grid", "seeds", "contrast"}
    counts = "means" in keys or (keys & of_means and not keys & of_contrasts)
    return (MeansClaim if counts else ContrastClaim).__name__


AnyClaim = Annotated[
    Annotated[ContrastClaim, Tag(ContrastClaim.__name__)]
    | Annotated[MeansClaim, Tag(MeansClaim.__name__)],
    Discriminator(_kind_of_claim),
]


class ClaimsFile(Table):
    """Statements about norms, each with its source and what it stands or falls with."""

    model_config = ConfigDict(title="normbench claims file")

    schema_: Version = Field(alias="schema", title="Schema", examples=[SCHEMA])
    """The version of this format."""
    claim: list[AnyClaim] = Field(min_length=1)
    """The claims."""
