"""The kinds of values that a cases or claims file may have, each with the words for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import (
    CoreSchema,
    ErrorDetails,
    InitErrorDetails,
    PydanticCustomError,
    ValidationError,
)
from pydantic_core import core_schema as cs

from normbench.cases.case import TIERS
from normbench.models.families import FAMILIES
from normbench.models.networks import NETWORKS
from normbench.models.regularizers import REGULARIZERS
from normbench.results import JUDGED
from normbench.training.optimizers import optimizer_factory
from normbench.training.recipes import (
    OPTIMIZERS,
    RECIPES,
    SCALINGS,
    SCHEDULES,
    recipe_spelling,
)

T = TypeVar("T")
C = TypeVar("C")

# The version of the format of cases and claims files.
SCHEMA = 1

# pydantic's name for an error of ours whose context holds what was expected.
EXPECTED = "expected"


def unexpected(words: str) -> PydanticCustomError:
    """Return the error of a value in whose place ``words`` were expected."""
    return PydanticCustomError(EXPECTED, "expected {expected}", {"expected": words})


def mistakes(sentences: dict[tuple[int, ...], list[str]], value: object) -> ValidationError:
    """Return several errors of one value; each is about an item of it, or with () about the whole.

    A validator may raise one error alone, which this is.
    """
    details = [
        InitErrorDetails(
            type=PydanticCustomError("value_error", "{error}", {"error": sentence}),
            loc=item,
            input=value,
        )
        for item, told in sentences.items()
        for sentence in told
    ]
    return ValidationError.from_exception_data("mistakes", details)


def each_once(values: list[T]) -> list[T]:
    """Return the values of a list; raises ValueError for one that stands there twice."""
    for at, value in enumerate(values):
        if value in values[:at]:
            raise ValueError(f"{_spelled(value)} stands in the list twice; leave one out")
    return values


def listed(values: Iterable[object]) -> str:
    """Spell values as a message lists them, each once."""
    return ", ".join(dict.fromkeys(map(_spelled, values)))


def condition(axis: str, value: object) -> str:
    """Spell a key with its value, in all digits that tell it from others."""
    return f"{axis} = {_spelled(value)}"


def _spelled(value: object) -> str:
    # 0 for 0.0, as a file has it
    short = isinstance(value, float) and value.is_integer()
    if short or isinstance(value, BaseModel):
        return f"{value:g}" if short else str(value)
    return repr(value)


def _expecting(words: str, schema: CoreSchema) -> CoreSchema:
    """Let every error of ``schema`` be that ``words`` were expected.

    pydantic tells the type, or the bound that was missed, but never both.
    """
    return cs.custom_error_schema(
        schema,
        custom_error_type=EXPECTED,
        custom_error_message="expected {expected}",
        custom_error_context={"expected": words},
    )


@dataclass(frozen=True)
class Number:
    """A whole number where it annotates int, else a finite number, between bounds.

    ``several`` says that it may also stand in a list.
    """

    low: float
    high: float | None = None
    below: float | None = None
    several: bool = False

    def words(self, whole: bool) -> str:
        if self.low == self.high:
            return f"{self.low:g}"
        bounds = f"of at least {self.low:g}"
        if self.high is not None:
            bounds += f" and at most {self.high:g}"
        if self.below is not None:
            bounds += f" and below {self.below:g}"
        return _listed_words(f"{'a whole number' if whole else 'a number'} {bounds}", self.several)

    def __get_pydantic_core_schema__(self, source: Any, _: GetCoreSchemaHandler) -> CoreSchema:
        # strict: true is no number, and "64" is none
        if source is int:
            low, high = int(self.low), None if self.high is None else int(self.high)
            return _expecting(self.words(whole=True), cs.int_schema(strict=True, ge=low, le=high))
        number = cs.float_schema(
            strict=True, ge=self.low, le=self.high, lt=self.below, allow_inf_nan=False
        )
        return _expecting(self.words(whole=False), number)


@dataclass(frozen=True)
class Text:
    """A text that is not blank."""

    words: str = "a text in quotes"
    several: bool = False

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        text = cs.str_schema(strict=True, pattern=r"\S")
        return _expecting(_listed_words(self.words, self.several), text)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return _expecting("true or false", cs.bool_schema(strict=True))


@dataclass(frozen=True)
class OneOf:
    """One of several texts."""

    allowed: tuple[str, ...]
    several: bool = False

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        words = _listed_words(one_of(self.allowed), self.several)
        return _expecting(words, cs.literal_schema(list(self.allowed)))


def one_of(allowed: tuple[str, ...]) -> str:
    """Return the words for a choice among texts."""
    return f"one of {', '.join(map(repr, allowed))}"


def _listed_words(words: str, several: bool) -> str:
    return f"{words}, or a list of them" if several else words


class _OneOrMore:
    """Lets a value stand for a list of that value alone."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def listed(value: object) -> object:
            # an empty list is told as a value that is none of those expected
            return value if isinstance(value, list) and value else [value]

        return cs.no_info_before_validator_function(listed, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        listed = handler(schema)
        return {"anyOf": [listed["items"], {**listed, "minItems": 1}]}


Several = Annotated[list[T], _OneOrMore(), AfterValidator(each_once)]

# An editor completes the names without a parameter, and takes any other with a colon.
NORM_SCHEMA: JsonSchemaValue = {
    "type": "string",
    "anyOf": [
        {"enum": [name for name in FAMILIES if ":" not in name]},
        {"pattern": r"[^:]:[^:]|^ws\+"},
    ],
    "examples": [
        *(family.example for family in FAMILIES.values()),
        "mypackage.mymodule:MyNorm",
    ],
}

NETWORK_SCHEMA: JsonSchemaValue = {
    "type": "string",
    "anyOf": [{"enum": list(NETWORKS)}, {"pattern": "[^:]:[^:]"}],
    "examples": [*NETWORKS, "mypackage.mymodule:MyNetwork"],
}

Version = Annotated[int, Number(SCHEMA, SCHEMA), WithJsonSchema({"const": SCHEMA})]
Tier = Annotated[str, OneOf(TIERS)]
Percentage = Annotated[float, Number(0, 100)]

# These may also stand in lists.
Norms = Several[Annotated[str, Text("a name in quotes", several=True), WithJsonSchema(NORM_SCHEMA)]]
Strength = Annotated[float, Number(0)]
Strengths = Several[Annotated[float, Number(0, several=True)]]
STRENGTHS_SCHEMA: JsonSchemaValue = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "array", "items": {"type": "number", "minimum": 0}, "minItems": 1},
    ]
}
BatchSizes = Several[Annotated[int, Number(1, several=True)]]
Verdicts = Several[Annotated[str, OneOf(tuple(map(str, JUDGED)), several=True)]]


class Table(BaseModel):
    """A table of a user's file: a key that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _again(details: ErrorDetails) -> InitErrorDetails:
    """Return an error as it is to be raised once more, beside others."""
    told = PydanticCustomError(details["type"], "{error}", details.get("ctx", {}))
    return InitErrorDetails(type=told, loc=details["loc"], input=details["input"])


NUMBER_SCHEMA: JsonSchemaValue = {"type": "number", "minimum": 0}
STRENGTHS: dict[str, str] = {
    name: f"The strength of {name}: {kind.summary()}" for name, kind in REGULARIZERS.items()
}


class AugmentationTable(Table):
    """Random changes of each training image, drawn uniformly from both signs."""

    rotation: Annotated[float, Number(0, 180)] | None = Field(default=None, examples=[10])
    """The largest rotation, in degrees."""
    shift: Annotated[float, Number(0)] | None = Field(default=None, examples=[2])
    """The largest shift along each axis, in pixels."""
    scale: Annotated[float, Number(0, below=1)] | None = Field(default=None, examples=[0.1])
    """The largest change of the size along each axis, as a fraction."""
    shear: Annotated[float, Number(0)] | None = Field(default=None, examples=[0.1])
    """The largest shear, as a fraction."""
    crop: Annotated[int, Number(0)] | None = Field(default=None, examples=[2])
    """The largest shift in whole pixels, over a mirrored border."""
    flip: Annotated[bool, Flag()] | None = Field(default=None, examples=[True])
    """Whether every other image is mirrored left to right."""


class SelectionTable(Table):
    """Which images an epoch trains on: all, or those that the network knows least."""

    share: Annotated[float, Number(0.01, 1)] | None = Field(default=None, examples=[0.33])
    """The part of the images that an epoch has: those whose losses were greatest."""
    after: Annotated[int, Number(1)] | None = Field(default=None, examples=[2])
    """After how many epochs of all images; 1 by default."""


def _optimizer(name: str) -> str:
    if name not in OPTIMIZERS:
        optimizer_factory(name)
    return name


class RecipeTable(Table):
    """How to train: a recipe of its own, or one that the suite has, changed."""

    from_: Annotated[str, OneOf(tuple(RECIPES))] | None = Field(
        default=None, alias="from", title="From", examples=["mnist"]
    )
    """The recipe that the other keys change; without it, learning_rate is needed."""
    learning_rate: Annotated[float, Number(1e-12)] | None = Field(default=None, examples=[0.05])
    """The peak of the learning rate at batch size 64."""
    scaling: Annotated[str, OneOf(tuple(SCALINGS))] | None = Field(
        default=None, examples=["linear"]
    )
    """How the learning rate goes with the batch size; linear by default."""
    schedule: Annotated[str, OneOf(SCHEDULES)] | None = Field(default=None, examples=["cosine"])
    """How the learning rate goes over the steps; one-cycle by default."""
    warmup: Annotated[float, Number(0, below=1)] | None = Field(default=None, examples=[0.3])
    """The part of the steps in which the learning rate rises; 0.3 by default."""
    optimizer: (
        Annotated[
            str,
            Text("the name of an optimizer in quotes"),
            AfterValidator(_optimizer),
            WithJsonSchema(
                {"type": "string", "anyOf": [{"enum": list(OPTIMIZERS)}, {"pattern": ":"}]}
            ),
        ]
        | None
    ) = Field(default=None, examples=["sgd"])
    """sgd, muon, adamw, or package.module:factory for one of your own; sgd by default."""
    momentum: Annotated[float, Number(0, below=1)] | None = Field(default=None, examples=[0.9])
    """The momentum of SGD and Muon, or AdamW's first beta; 0.9 by default."""
    label_smoothing: Annotated[float, Number(0, below=1)] | None = Field(
        default=None, examples=[0.1]
    )
    """The part of the target that is shared among all classes; 0 by default."""
    gradient_clipping: Annotated[float, Number(0)] | None = Field(default=None, examples=[1.0])
    """The largest norm of the gradient of the loss; 0, the default, for none."""
    augmentation: AugmentationTable | None = Field(default=None, examples=[{"flip": True}])
    """How each training image is changed at random; not at all by default."""
    selection: SelectionTable | None = Field(default=None, examples=[{"share": 0.33}])
    """Which images an epoch trains on; all by default."""
    whitening: Annotated[bool, Flag()] | None = Field(default=None, examples=[True])
    """Whether the first convolution begins by whitening the images' patches; it does not."""
    test_time_flip: Annotated[bool, Flag()] | None = Field(default=None, examples=[True])
    """Whether test images are classified together with their mirror images; they are not."""

    @model_validator(mode="after")
    def _with_a_learning_rate(self) -> Self:
        if self.from_ is None and self.learning_rate is None:
            raise ValueError(
                "expected the key learning_rate, or from with the recipe that the other keys "
                f"change, one of {', '.join(RECIPES)}"
            )
        return self

    def __str__(self) -> str:
        return recipe_spelling(self.model_dump(by_alias=True, exclude_none=True))


class _RecipeValue:
    """A recipe's name, or a table of one."""

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return cs.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        table = handler(RecipeTable.__pydantic_core_schema__)
        return {"anyOf": [{"enum": list(RECIPES)}, table]}

    @staticmethod
    def _read(value: object) -> str | RecipeTable:
        if isinstance(value, dict):
            return RecipeTable.model_validate(value)
        if isinstance(value, str) and value in RECIPES:
            return value
        raise unexpected(f"{one_of(tuple(RECIPES))}, or a table of a recipe of its own")


Recipe = Annotated[str | RecipeTable, _RecipeValue()]


class StrengthsTable(Table):
    """A table that has regularizers' strengths beside its own keys, by the regularizers' names.

    ``strengths`` are those that it has, of the type that the subclass gives them; a name that
    stands for no regularizer is an unknown key. Subclasses say in ``strength_schema`` what one is
    in JSON Schema.
    """

    model_config = ConfigDict(extra="allow")
    other_keys: ClassVar[tuple[str, ...]] = (*REGULARIZERS, '"package.module:factory"')
    strength_schema: ClassVar[JsonSchemaValue] = NUMBER_SCHEMA

    @model_validator(mode="wrap")
    @classmethod
    def _of_regularizers(cls, value: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Tell of the keys that are unknown beside whatever else is wrong with the table."""
        if not isinstance(value, dict):
            return read(value)
        known = {*cls.model_fields, *REGULARIZERS}
        unknown = {k: v for k, v in value.items() if k not in known and ":" not in k}
        told = [
            InitErrorDetails(type="extra_forbidden", loc=(key,), input=item)
            for key, item in unknown.items()
        ]
        try:
            found = read({key: item for key, item in value.items() if key not in unknown})
        except ValidationError as error:
            told = [*map(_again, error.errors(include_url=False)), *told]
        if told:
            raise ValidationError.from_exception_data("table", told)
        return found

    @property
    def strengths(self) -> dict[str, Any]:
        return self.__pydantic_extra__ or {}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        described = handler.resolve_ref_schema(handler(schema))
        described.setdefault("properties", {}).update(
            {
                name: {**cls.strength_schema, "title": name, "description": told}
                for name, told in STRENGTHS.items()
            }
        )
        described["patternProperties"] = {"[^:]:[^:]": cls.strength_schema}
        described["additionalProperties"] = False
        return described


def context_of(info: ValidationInfo, kind: type[C]) -> C:
    """Return what a file is held against; errors.validated hands it over."""
    if not isinstance(info.context, kind):
        raise TypeError(f"expected a {kind.__name__} as the context of the validation")
    return info.context
