"""Write docs/reference.md, the public interface, out of the docstrings: ``make reference``."""

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

from normbench.cases.case import Case, Claim, Contrast, MeansCount, Published
from normbench.models import networks, norms
from normbench.models.families import NormClaims
from normbench.models.norms import NormSite, norm_factory
from normbench.models.regularizers import Regularizer, drop_branch, find_regularizer
from normbench.plugin import MARKERS, hookspec
from normbench.plugin import check as check_fixture
from normbench.plugin import judge_claim as judge_fixture
from normbench.plugin import run as run_fixture
from normbench.plugin import run_case as run_case_fixture
from normbench.plugin import trace as trace_fixture
from normbench.results import Epoch, Mistake, RunFailed, RunResult, Runs
from normbench.spec import RunSpec
from normbench.storage.session import StoredSession, latest_session, read_session
from normbench.training.data import ImageData
from normbench.training.optimizers import own_optimizer
from normbench.training.recipes import Augmentation, Recipe

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"

INTRODUCTION = """\
# The public interface

What tests, norms and other code of your own may build on. It is written by `make reference` from
the docstrings; the [tutorial](tutorial.md) shows it at work.

**What stays.** Within a major version, what this page names keeps its name, its meaning and its
parameters, and so do the options of `--bench-...`, the commands of `normbench` and their exit
codes, the keys of cases and claims files, and the ids of cases. Documents that a version has
written are read by all later ones. Fields, parameters with a default, keys, options and commands
may be added: pass arguments by name, and do not rely on a dataclass having no more fields.

**What may change.** Everything that this page does not name: other modules and functions, the
layout and the wording of tables, summaries, reports and error messages, the columns of CSV files
(none is renamed, but some may be added between others), timings, and the accuracies themselves, as
torch, the recipes and the networks change. What two sessions were trained with is told by
fingerprints, so that such a change is never taken for one of yours.
"""

SECTIONS: dict[str, dict[str, Any]] = {
    "Fixtures": {
        "run": run_fixture,
        "run_case": run_case_fixture,
        "judge": judge_fixture,
        "check": check_fixture,
        "trace": trace_fixture,
    },
    "Hooks": {"pytest_bench_session_finished": hookspec.pytest_bench_session_finished},
    "Runs and their results": {
        each.__name__: each for each in (RunSpec, RunResult, Epoch, Mistake, Runs, RunFailed)
    },
    "Cases and claims": {
        each.__name__: each for each in (Case, Published, Claim, Contrast, MeansCount)
    },
    "Norms": {
        "normbench.models.norms": norms,
        **{each.__name__: each for each in (norm_factory, NormClaims, NormSite)},
    },
    "Regularizers": {each.__name__: each for each in (find_regularizer, Regularizer, drop_branch)},
    "Networks": {"normbench.models.networks": networks},
    "Data sets": {"ImageData": ImageData},
    "Recipes": {each.__name__: each for each in (Recipe, Augmentation, own_optimizer)},
    "Stored sessions": {
        each.__name__: each for each in (read_session, latest_session, StoredSession)
    },
}

# Where to import from what is defined elsewhere.
IMPORTED_FROM = {ImageData: "normbench.training.data"}


def page() -> str:
    """Return the page."""
    parts = [INTRODUCTION, "## Markers\n", markers()]
    for title, named in SECTIONS.items():
        parts.append(f"## {title}\n")
        parts += [described(name, each) for name, each in named.items()]
    return "\n".join(parts).rstrip() + "\n"


def markers() -> str:
    """Return what each marker does, as pytest --markers tells it."""
    lines = []
    for marker in MARKERS:
        name, _, told = marker.partition(": ")
        lines.append(f"- `@pytest.mark.{name}`: {told}.")
    return "\n".join(lines) + "\n"


def described(name: str, thing: Any) -> str:
    """Return a heading, the module, the signature and the docstring, and those of methods."""
    thing = inspect.unwrap(getattr(thing, "_get_wrapped_function", lambda: thing)())
    parts = [f"### {name}\n"]
    if inspect.ismodule(thing):
        return "\n".join([*parts, markdown(inspect.getdoc(thing) or "")])
    if name in SECTIONS["Fixtures"]:
        parts.append(f"`{short(str(inspect.signature(thing).return_annotation))}`\n")
    else:
        parts.append(f"`{IMPORTED_FROM.get(thing, thing.__module__)}`\n")
        parts.append(f"```text\n{signature(name, thing)}\n```\n")
    parts.append(markdown(inspect.getdoc(thing) or ""))
    if inspect.isclass(thing):
        parts += [
            f"- {shown}: {markdown(inspect.getdoc(member) or '').splitlines()[0]}"
            for shown, member in members(thing)
        ]
        parts.append("")
    return "\n".join(parts)


def signature(name: str, thing: Any) -> str:
    """Return the signature, an argument a line where it is long."""
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return f"{name}({', '.join(base.__name__ for base in thing.__bases__)})"
    found = inspect.signature(thing)
    if inspect.isclass(thing):
        found = found.replace(return_annotation=inspect.Signature.empty)
    if len(plain := short(f"{name}{found}")) <= 100:
        return plain
    arguments = (f"    {short(str(parameter))},\n" for parameter in found.parameters.values())
    return f"{name}(\n{''.join(arguments)})"


def short(text: str) -> str:
    """Return types without their modules and quotes."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)
    return re.sub(r"\b(normbench|collections|typing|torch)\.([a-z_.]+\.)?", "", text).replace(
        "<factory>", "..."
    )


def members(kind: type) -> list[tuple[str, Any]]:
    """Return the public methods and properties that a class itself has, with how they are shown."""
    found: list[tuple[str, Any]] = []
    for name, member in vars(kind).items():
        if name.startswith("_") or not inspect.getdoc(member):
            continue
        if isinstance(member, property):
            found.append((f"`{name}`", member.fget))
        elif inspect.isfunction(member):
            found.append((call(name, member), member))
        elif isinstance(member, classmethod):
            found.append((call(name, member.__func__), member.__func__))
    return found


def call(name: str, method: Any) -> str:
    """Return how a method is called."""
    _, *given = inspect.signature(method).parameters
    return f"`{name}({', '.join(given)})`"


def markdown(docstring: str) -> str:
    """Return a docstring with code as markdown has it, a paragraph a line."""
    lines: list[str] = []
    for block in re.split(r"\n\n(?!    )", docstring.replace("``", "`")):
        block, _, code = block.partition("::\n\n")
        if code:
            lines.append(" ".join(block.split()) + ":\n")
            lines.append("```text\n" + textwrap.dedent(code) + "\n```\n")
        elif block.startswith("- "):
            lines.append(re.sub(r"\n  +", " ", block) + "\n")
        else:
            lines.append(" ".join(block.split()) + "\n")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
