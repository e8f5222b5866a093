"""TOML files checked key by key: what is wrong is named, with what was expected."""

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
N = TypeVar("N", int, float)


class CasesError(ValueError):
    """A cases file that does not say what a cases file has to say."""


def read_toml(file: Path) -> dict[str, Any]:
    """Return what the file holds; raises CasesError where it cannot be read, or is not TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CasesError(f"cannot read the cases file {file}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise CasesError(f"{file} is not TOML: {error}") from error


@dataclass(frozen=True)
class CheckedTable:
    """A table of a cases file; its methods return a key's value once it is what it has to be."""

    where: str
    values: Mapping[str, Any]

    def require_keys(self, required: set[str], optional: set[str]) -> None:
        if unknown := sorted(self.values.keys() - required - optional):
            raise CasesError(
                f"{self.where}: unknown key {', '.join(unknown)}; "
                f"known are {', '.join(sorted(required | optional))}"
            )
        if missing := sorted(required - self.values.keys()):
            raise CasesError(f"{self.where}: the key {', '.join(missing)} is missing")

    def one_of(self, key: str, allowed: tuple[T, ...]) -> T:
        value = self.values[key]
        if value not in allowed or isinstance(value, bool):
            choices = ", ".join(map(repr, allowed))
            raise CasesError(f"{self.where}: {key} = {value!r}; expected one of {choices}")
        return allowed[allowed.index(value)]

    def text(self, key: str) -> str:
        value = self.values[key]
        if not isinstance(value, str) or not value.strip():
            raise CasesError(f"{self.where}: {key} = {value!r}; expected a text in quotes")
        return value

    def number(
        self, key: str, kind: type[N], low: float, high: float = math.inf, default: N | None = None
    ) -> N:
        value = self.values.get(key, default)
        return checked_number(self.where, key, value, kind, low, high)

    def tables(self, key: str) -> Iterator["CheckedTable"]:
        tables = self.values[key]
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            raise CasesError(f"{self.where}: expected {key} as [[{key}]] tables")
        for number, table in enumerate(tables, start=1):
            yield CheckedTable(f"{self.where}: [[{key}]] {number}", table)

    def table(self, key: str) -> "CheckedTable":
        value = self.values[key]
        if not isinstance(value, dict):
            raise CasesError(f"{self.where}: {key} = {value!r}; expected a table of keys")
        return CheckedTable(f"{self.where}: {key}", value)

    def each(self, key: str, check: Callable[[str, Any], Any]) -> list[Any]:
        values = self.values[key]
        if not isinstance(values, list) or not values:
            raise CasesError(f"{self.where}: {key} = {values!r}; expected a list of values")
        return [check(f"{self.where}: {key}", value) for value in values]


def checked_number(
    where: str, key: str, value: Any, kind: type[N], low: float, high: float = math.inf
) -> N:
    """Return a number of this kind between the bounds; raises CasesError for anything else."""
    allowed = (int,) if kind is int else (int, float)
    if type(value) not in allowed or not low <= value <= high or value == math.inf:
        expected = "a whole number" if kind is int else "a number"
        upper = "" if high == math.inf else f" and at most {high:g}"
        raise CasesError(
            f"{where}: {key} = {value!r}; expected {expected} of at least {low:g}{upper}"
        )
    return kind(value)
