"""The kinds of values that a cases or claims file may have, each with the words for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, ValidationError
from pydantic_core import core_schema as cs

from normbench.cases.case import TIERS
from normbench.models.networks import NETWORKS
from normbench.models.norms import FAMILIES
from normbench.results import JUDGED
from normbench.training.recipes import RECIPES

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
Recipe = Annotated[str, OneOf(tuple(RECIPES))]
Percentage = Annotated[float, Number(0, 100)]

# These may also stand in lists.
Norms = Several[Annotated[str, Text("a name in quotes", several=True), WithJsonSchema(NORM_SCHEMA)]]
Strengths = Several[Annotated[float, Number(0, several=True)]]
BatchSizes = Several[Annotated[int, Number(1, several=True)]]
Verdicts = Several[Annotated[str, OneOf(tuple(map(str, JUDGED)), several=True)]]


class Table(BaseModel):
    """A table of a user's file: a key that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def context_of(info: ValidationInfo, kind: type[C]) -> C:
    """Return what a file is held against; errors.validated hands it over."""
    if not isinstance(info.context, kind):
        raise TypeError(f"expected a {kind.__name__} as the context of the validation")
    return info.context
