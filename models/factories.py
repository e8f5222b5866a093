"""What a user names as ``package.module:factory``: finding it, calling it, telling what it raised.

Every kind of thing that can be named so goes through here: norms, regularizers, networks, data
sets and optimizers.
"""

import importlib
import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Any

SPELLING = "package.module:factory"


def named_object(name: str, kind: str, known: str, raises: type[ValueError]) -> Any:
    """Return the object that ``name`` spells as ``package.module:factory``.

    Where it cannot be imported, whatever its module raises, ``raises`` is raised with a line that
    names the ``kind`` of thing and what else is ``known``, and the line of the user's module.
    """
    module_name, _, attribute = name.partition(":")
    try:
        if not all(part.isidentifier() for part in module_name.split(".")):
            raise ValueError(f"{module_name!r} is no module's full name")
        return getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:
        usual = isinstance(error, (ImportError, AttributeError, ValueError))
        said = " ".join(f"{'' if usual else f'{type(error).__name__}: '}{error}".split("\n"))
        raise raises(
            f"unknown {kind} {name!r}: {said}{_line_of(error)}; expected {SPELLING} with "
            f"a module that Python can import from here, or one of {known}"
        ) from error


def _line_of(error: BaseException) -> str:
    """Return the line of the user's module that raised it, where one did."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    return f" ({users[-1].filename}, line {users[-1].lineno})" if users else ""


def told(error: BaseException) -> str:
    """Return what a user's code raised, on one line."""
    said = ": ".join(filter(str.strip, (type(error).__name__, str(error))))
    return " ".join(said.split())


def signature_problem(factory: Callable[..., Any], *given: Any, **named: Any) -> str | None:
    """Return why ``factory`` cannot be called with these arguments; None where it can.

    Some builtins have no signature, and say what is wrong once they are called.
    """
    try:
        inspect.signature(factory).bind(*given, **named)
    except ValueError:
        return None
    except TypeError as error:
        return str(error)
    return None


def accepted(factory: Any, names: Sequence[str]) -> list[str]:
    """Return those of the names that ``factory`` has a parameter of."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in names if name in parameters]
