"""What is wrong with a cases or claims file: all of it at once, a line each."""

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from normbench.cases.values import EXPECTED, SCHEMA

M = TypeVar("M", bound=BaseModel)

# How the headers of a key's tables are written, for the keys that have tables under headers.
HEADERS = {
    "grid": "[[grid]]",
    "target": "[[target]]",
    "claim": "[[claim]]",
    "contrast": "[[claim.contrast]]",
}

LONGEST_VALUE = 80


class CasesError(ValueError):
    """A cases or claims file that does not say what it has to say; a line for each mistake."""


class Mistakes:
    """Collects the mistakes of several files, each line once, to be raised together."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep a CasesError that the block raises for later."""
        try:
            yield
        except CasesError as error:
            self._lines |= dict.fromkeys(str(error).splitlines())

    def raise_any(self) -> None:
        """Raise CasesError with all that was collected, if there is anything."""
        if self._lines:
            raise CasesError("\n".join(self._lines))


def read_toml(file: Path) -> dict[str, Any]:
    """Return what the file holds; raises CasesError where it cannot be read, or is not TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise CasesError(f"cannot read the cases file {file}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise CasesError(f"{file} is not TOML: {error}") from error


def one_line(text: str) -> str:
    """Return a message, which may repeat an exception of a user's norm, on one line."""
    return " ".join(text.split("\n"))


def validated(model: type[M], file: Path, raw: dict[str, Any], context: object) -> M:
    """Return the file's content as its model; ``context`` is what its validators look up.

    Raises CasesError with everything that is wrong, in the order in which it stands in the file.
    """
    if not raw:
        keys = ", ".join(key for key, field in _fields(model).items() if field.is_required())
        raise CasesError(
            f"{file}: expected the keys {keys}, came an empty file; `normbench schema` prints what "
            "is allowed"
        )
    schema = raw.get("schema")
    # what a later version has added is not wrong, so that nothing else is said of the file
    if isinstance(schema, int) and schema > SCHEMA:
        raise CasesError(
            f"{file}: schema = {schema}; this version reads {SCHEMA}; install a newer normbench, "
            f"or write schema = {SCHEMA}"
        )
    try:
        return model.model_validate(raw, context=context)
    except ValidationError as error:
        raise CasesError("\n".join(_lines(model, file, raw, error))) from None


def _lines(
    model: type[BaseModel], file: Path, raw: dict[str, Any], error: ValidationError
) -> list[str]:
    found = [_Mistake(model, file, raw, details) for details in error.errors(include_url=False)]
    # a key that is misspelt is one mistake, and no missing key beside it
    misspelt = {(*m.path[:-1], m.suggestion) for m in found if m.kind == "extra_forbidden"}
    told = [m for m in found if m.kind != "missing" or m.path not in misspelt]
    return list(dict.fromkeys(m.line for m in sorted(told, key=lambda m: m.position)))


@dataclass(frozen=True)
class _Mistake:
    """One of pydantic's errors, with what is around it in the file."""

    model: type[BaseModel]
    file: Path
    raw: dict[str, Any]
    details: ErrorDetails

    @property
    def kind(self) -> str:
        return self.details["type"]

    @property
    def line(self) -> str:
        return one_line(WORDS.get(self.kind, _other_value)(self))

    @cached_property
    def _located(self) -> tuple[type[BaseModel], tuple[int | str, ...]]:
        """The table that the last key stands in, and the keys and numbers that lead there.

        Where a table is of one of several kinds, pydantic's way also has the name of the kind.
        """
        table: type[BaseModel] = self.model
        kinds: dict[str, type[BaseModel]] = {}
        path: list[int | str] = []
        for step in self.details["loc"]:
            if isinstance(step, str) and len(kinds) > 1 and step in kinds:
                kinds = {step: kinds[step]}
                continue
            path.append(step)
            if isinstance(step, str):
                table = next(iter(kinds.values()), table)
                field = _fields(table).get(step)
                kinds = _tables(field.annotation) if field else {}
        return table, tuple(path)

    @property
    def path(self) -> tuple[int | str, ...]:
        return self._located[1]

    @cached_property
    def key(self) -> str:
        return next(step for step in reversed(self.path) if isinstance(step, str))

    @property
    def field(self) -> FieldInfo:
        return _fields(self._located[0])[self.key]

    @property
    def example(self) -> str:
        """A right value of the key, or of one item of its list, in TOML."""
        (example, *_) = self.field.examples or [""]
        return toml_value(example[-1] if isinstance(self.path[-1], int) else example)

    @property
    def value(self) -> str:
        shown = repr(self.details["input"])
        return shown if len(shown) <= LONGEST_VALUE else f"{shown[:LONGEST_VALUE]}..."

    @property
    def known(self) -> list[str]:
        table = self._located[0]
        return sorted({*_fields(table), *getattr(table, "other_keys", ())})

    @cached_property
    def suggestion(self) -> str:
        """The known key, not in the table yet, that an unknown one looks like."""
        table: Any = self.raw
        for step in self.path[:-1]:
            table = table[step]
        close = difflib.get_close_matches(self.key, [k for k in self.known if k not in table], n=1)
        return close[0] if close else ""

    @cached_property
    def position(self) -> tuple[int, ...]:
        """Where it stands in the file; a key that is missing, where its table begins."""
        value: Any = self.raw
        numbers: list[int] = []
        for step in self.path:
            if isinstance(value, dict):
                numbers.append(list(value).index(step) if step in value else -1)
                value = value.get(step)
            elif isinstance(step, int):
                numbers.append(step)
                # a single value is told as the first of a list
                value = value[step] if isinstance(value, list) and value else None
        return tuple(numbers)

    @property
    def place(self) -> str:
        return self._place(len(self.path))

    @property
    def table_place(self) -> str:
        """The place of the table that the key stands in."""
        return self._place(len(self.path) - 1 - self.path[::-1].index(self.key))

    def _place(self, steps: int) -> str:
        parts = [str(self.file)]
        for at, step in enumerate(self.path[:steps]):
            if isinstance(step, str):
                parts.append(HEADERS.get(step, step))
            # a value of a list is told itself, a table by its number
            elif at + 1 < len(self.path) or self.path[at - 1] in HEADERS:
                parts[-1] += f" {step + 1}{self._name(step) if at == 1 else ''}"
        return ": ".join(parts)

    def _name(self, number: int) -> str:
        tables = self.raw[str(self.path[0])]
        name = tables[number].get("name") if isinstance(tables[number], dict) else None
        return f" ({name})" if isinstance(name, str) and name.strip() else ""


def _fields(table: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in table.model_fields.items()}


def _tables(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return the kinds of tables in an annotation, by their names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation.__name__: annotation}
    found: dict[str, type[BaseModel]] = {}
    for part in get_args(annotation):
        found |= _tables(part)
    return found


def _missing(mistake: _Mistake) -> str:
    key = mistake.key
    remedy = (
        f"a {HEADERS[key]} table"
        if _tables(mistake.field.annotation) and key in HEADERS
        else f"it, such as {key} = {mistake.example}"
    )
    return f"{mistake.table_place}: the key {key} is missing; add {remedy}"


def _unknown(mistake: _Mistake) -> str:
    known = f"known are {', '.join(mistake.known)}"
    hint = f"; did you mean {mistake.suggestion}?" if mistake.suggestion else ""
    return f"{mistake.table_place}: unknown key {_toml_key(mistake.key)}; {known}{hint}"


def _not_what(mistake: _Mistake, expected: str) -> str:
    return f"{mistake.table_place}: {mistake.key} = {mistake.value}; expected {expected}"


def _no_table(mistake: _Mistake) -> str:
    if mistake.key in HEADERS:
        return _no_tables(mistake)
    return _not_what(mistake, f"a table such as {mistake.example}")


def _no_tables(mistake: _Mistake) -> str:
    header = HEADERS[mistake.key]
    return f"{mistake.table_place}: expected {mistake.key} as {header} tables, at least one"


def _no_list(mistake: _Mistake) -> str:
    if mistake.key in HEADERS:
        return _no_tables(mistake)
    value = mistake.details["input"]
    (example, *_) = mistake.field.examples or [[]]
    # 64 for [64], but no [7] for a list of texts
    alike = type(value) is type(example[-1])
    remedy = f"; write {toml_value([value])}" if alike else f" such as {mistake.example}"
    return _not_what(mistake, f"a list of values{remedy}")


def _empty(mistake: _Mistake) -> str:
    if mistake.key in HEADERS:
        return _no_tables(mistake)
    kind = "table" if isinstance(mistake.details["input"], dict) else "list"
    return _not_what(mistake, f"a {kind} of values, at least one, such as {mistake.example}")


def _expected(mistake: _Mistake) -> str:
    return _not_what(mistake, mistake.details["ctx"]["expected"])


def _told(mistake: _Mistake) -> str:
    return f"{mistake.place}: {mistake.details['ctx']['error']}"


def _other_value(mistake: _Mistake) -> str:
    return _not_what(mistake, "another kind of value; `normbench schema` prints what is allowed")


def toml_value(value: object) -> str:
    """Spell a value as TOML has it, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        keys = (f"{_toml_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {', '.join(keys)} }}" if value else "{}"
    return str(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


# What is said of each of pydantic's types of errors.
WORDS: Mapping[str, Callable[[_Mistake], str]] = {
    EXPECTED: _expected,
    "value_error": _told,
    "missing": _missing,
    "extra_forbidden": _unknown,
    "list_type": _no_list,
    "dict_type": _no_table,
    "model_type": _no_table,
    "too_short": _empty,
}
