"""The documentation: what it shows is run, or says why not, and its links lead somewhere.

A block of ``sh`` is run line by line in a folder of its document's own. One of ``python`` or
``toml`` whose first line is a comment with a file's name is written to that file in the folder;
other Python is run. ``text`` is what a command printed. A block that is not run has the reason
directly above it: ``<!-- not run: takes two hours -->``.
"""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example, Region
from sybil.example import SybilFailure
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from normbench.commands.main import COMMANDS
from normbench.plugin.options import add_options

from .conftest import WITHOUT

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

BLOCKS = RawFencedCodeBlockLexer(re.compile(r"(?P<language>[^\n]*)\n"))
REASON = re.compile(r"<!-- not run: \S.* -->\n")
FILE_NAME = re.compile(r"# ([\w./-]+\.\w+)\n")
COMMAND = re.compile(r"\s*(\$ |(normbench|pytest|python|pip|make|tox|ruff|mypy) )")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Block:
    """A fenced block; ``marked`` says that the reason why it is not run stands above it."""

    language: str
    source: str
    marked: bool

    @property
    def file(self) -> str | None:
        """The file that the block is written to."""
        named = FILE_NAME.match(self.source)
        return named[1] if named and self.language in ("python", "toml") else None

    @property
    def commands(self) -> list[str]:
        """The command lines of the block, those that go on after a backslash as one."""
        lines = re.sub(r"\\\n\s*", " ", self.source).splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]

    @property
    def complaint(self) -> str:
        """Say why the block is neither run nor marked; an empty text if it is."""
        if self.marked or self.language in ("sh", "python") or self.file:
            return ""
        if self.language == "text":
            shown = next(filter(COMMAND.match, self.source.splitlines()), None)
            return f"it shows the command {shown!r}: make it a block of sh" if shown else ""
        if self.language == "toml":
            return "no file is named: begin with a comment such as `# quick.toml`, or mark it"
        return (
            f"nothing runs a block of {self.language or 'no language'}: expected sh, python, toml "
            "or text, or the reason above it, as <!-- not run: takes two hours -->"
        )


def code_blocks(document: Document) -> Iterator[Region]:
    """Yield a region for each fenced block, parsed as a Block."""
    for region in BLOCKS(document):
        above = document.text[: region.start].rpartition("\n")[0].rpartition("\n")[2] + "\n"
        block = Block(
            region.lexemes["language"].strip(),
            region.lexemes["source"],
            marked=REASON.fullmatch(above) is not None,
        )
        yield Region(region.start, region.end, parsed=block, evaluator=evaluate)


def evaluate(example: Example) -> str | None:
    """Run a block; return what went wrong."""
    block: Block = example.parsed
    folder: Path = example.namespace["folder"]
    if block.marked or block.complaint or block.language == "text":
        return block.complaint or None
    if block.language == "toml":
        tomllib.loads(block.source)
    if block.file:
        file = folder / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.source, encoding="utf-8")
        return None
    if block.language == "python":
        return _failure([sys.executable, "-c", block.source], folder)
    failures = (_failure(command, folder) for command in block.commands)
    return next(filter(None, failures), None)


def _failure(command: str | list[str], folder: Path) -> str | None:
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode == 0:
        return None
    shown = command if isinstance(command, str) else command[-1]
    return f"{shown}\nexited with {done.returncode}:\n{done.stdout}"


def _environment(folder: Path) -> dict[str, str]:
    """Return a user's environment: without this session of pytest's, data, or a GitHub workflow."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTEST_") and name != "GITHUB_STEP_SUMMARY"
    }
    programs = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", "")))
    data = str(folder / "no-data")
    ours = {"PATH": programs, "OMP_NUM_THREADS": "1", "NORMBENCH_DATA": data}
    return {**kept, **ours, "PYTEST_ADDOPTS": WITHOUT}


def parse(file: Path, folder: Path | None = None) -> Document:
    document = Document.parse(str(file), code_blocks)
    document.namespace["folder"] = folder
    return document


def of_each_document(*files: Path) -> pytest.MarkDecorator:
    names = [str(file.relative_to(ROOT)) for file in files]
    return pytest.mark.parametrize("file", files, ids=names)


@of_each_document(*DOCUMENTS)
def test_every_block_is_run_or_says_why_not(file: Path) -> None:
    document = parse(file)
    examples = list(document.examples())
    complaints = [f"{file}:{e.line}: {e.parsed.complaint}" for e in examples if e.parsed.complaint]
    assert complaints == []
    reasons = re.findall(r"^\s*<!--\s*not run", document.text, re.MULTILINE)
    assert len(reasons) == sum(example.parsed.marked for example in examples), (
        "a reason stands directly above its block, as <!-- not run: takes two hours -->"
    )


@of_each_document(*(file for file in DOCUMENTS if list(parse(file).examples())))
def test_what_a_document_shows_works(file: Path, tmp_path: Path) -> None:
    for example in parse(file, tmp_path).examples():
        example.evaluate()


def evaluated(text: str, folder: Path) -> None:
    (folder / "document.md").write_text(text, encoding="utf-8")
    for example in parse(folder / "document.md", folder).examples():
        example.evaluate()


def test_commands_are_run_in_order_in_the_folder_of_the_named_files(tmp_path: Path) -> None:
    evaluated(
        "```toml\n# a/b.toml\nx = 1\n```\n\n"
        "```sh\n# a comment alone\ngrep 'x = 1' \\\n  a/b.toml > found\ncat found  # again\n```\n",
        tmp_path,
    )
    assert (tmp_path / "found").read_text(encoding="utf-8") == "x = 1\n"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```sh\ntrue\nfalse\n```", r"line 1, .*\nfalse\nexited with 1"),
        ("```python\n1 / 0\n```", r"ZeroDivisionError"),
        ("```console\n$ true\n```", r"nothing runs a block of console"),
        ("```\ntrue\n```", r"nothing runs a block of no language"),
        ("```toml\nx = 1\n```", r"no file is named"),
        ("```text\n$ normbench\n```", r"it shows the command '\$ normbench'"),
        ("<!-- not run: -->\n```bash\ntrue\n```", r"nothing runs a block of bash"),
        ("<!-- not run: why -->\n\n```bash\ntrue\n```", r"nothing runs a block of bash"),
    ],
)
def test_a_block_that_fails_or_that_nothing_runs_is_told(
    block: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SybilFailure, match=message):
        evaluated(f"{block}\n", tmp_path)


def test_a_block_with_a_reason_is_not_run(tmp_path: Path) -> None:
    evaluated("<!-- not run: it fails -->\n```sh\nfalse\n```\n", tmp_path)


def prose(file: Path) -> str:
    """Return the text of a document without its blocks."""
    document, end, parts = parse(file), 0, []
    for example in document.examples():
        parts.append(document.text[end : example.start])
        end = example.region.end
    return "".join([*parts, document.text[end:]])


def anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document, none of which come twice."""
    headings = re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@of_each_document(*DOCUMENTS)
def test_relative_links_lead_to_what_is_there(file: Path) -> None:
    for link in LINK.findall(prose(file)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


class Recorded:
    """Stands in for pytest's parser and its group: keeps the names of options."""

    def __init__(self) -> None:
        self.options: list[str] = []

    def getgroup(self, *_: str) -> "Recorded":
        return self

    def addoption(self, name: str, **_: object) -> None:
        self.options.append(name)


def test_the_readme_lists_every_option_and_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parser: Any = Recorded()
    add_options(parser)
    listed = re.findall(r"^\| `(--bench-[a-z-]+)", readme, re.MULTILINE)
    assert sorted(listed) == sorted(parser.options)
    assert f"({', '.join(f'`{name}`' for name in COMMANDS)})" in readme
