"""Sessions taken out of what a CI run has kept of them: out of folders and zip files."""

import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from normbench.storage.session import SessionError, StoredSession, read_session

# What a session's folder holds, but for locks and for checkpoints, which only its machine needs.
FILES = re.compile(
    r"(session\.json|runs\.jsonl|summary\.md|report\.html|side-by-side\.html"
    r"|tables/[^/]+\.(csv|md)|figures/[^/]+\.(png|svg)|pictures/[^/]+\.npz|stalls/[^/]+\.txt"
    r"|(checks|traces|case-traces)/[^/]+\.json)"
)
# What was measured; the rest can be drawn again, and may have been.
MEASURED = re.compile(r"(session\.json|runs\.jsonl|(checks|traces|case-traces)/.*)")
NAME = re.compile(r"[\w-][\w.-]*")

# What a zip file may hold of sessions at most: that of the full tier takes some ten megabytes.
MOST_BYTES = 4 * 1024**3
MOST_FILES = 100_000
BLOCK_BYTES = 1 << 20

Files = Mapping[str, Callable[[], IO[bytes]]]


class ArtefactError(ValueError):
    """A folder or zip file that sessions cannot be taken out of."""


@dataclass(frozen=True)
class Artefact:
    """A session as it lies in a folder or zip file.

    ``files`` opens each by its path in the session's folder; ``place`` is told to the user.
    """

    place: str
    files: Files

    def document(self) -> tuple[str, str]:
        """Return the session's name and status; raises ArtefactError where there are none."""
        try:
            with self.files["session.json"]() as file:
                values: Any = json.load(file)
            name, status = values["session"], values["status"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtefactError(
                f"cannot read {self.place}/session.json: {error!r}; expected what a session leaves"
            ) from error
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise ArtefactError(
                f"{self.place}/session.json names the session {name!r:.60}: expected the name of a "
                "folder, of letters, digits, dots and dashes"
            )
        return name, str(status)

    def copy(self, folder: Path) -> None:
        """Copy the files to a new folder, and read them all; raises ArtefactError for damage."""
        for path, opened in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, (folder / path).open("wb") as target:
                shutil.copyfileobj(source, target, BLOCK_BYTES)
        try:
            session = read_session(folder)
            session.require_rows()
            _ = (session.checks, session.traces)
        except SessionError as error:
            raise ArtefactError(str(error).replace(str(folder), self.place)) from error

    def is_stored_in(self, folder: Path) -> bool:
        """Tell whether the folder holds the same session: all that was measured is equal."""
        stored = dict(_files_of(folder))
        paths = {path for path in (*stored, *self.files) if MEASURED.fullmatch(path)}
        return all(
            path in stored and path in self.files and _equal(stored[path], self.files[path])
            for path in paths
        )


@contextmanager
def opened_sessions(sources: Iterable[Path]) -> Iterator[list[StoredSession]]:
    """Read all sessions of folders and zip files, from copies that are gone afterwards.

    They come by their names, each once. Raises ArtefactError as import_sessions does, and for a
    session that has not ended.
    """
    with tempfile.TemporaryDirectory(prefix="normbench-") as temporary:
        runs = Path(temporary).resolve() / "runs"
        if running := [found.told for found in _taken(sources, runs) if not found.ended]:
            raise ArtefactError(f"{'; '.join(running)}: expected sessions that have ended")
        yield [read_session(folder) for folder in sorted(runs.iterdir())]


def import_sessions(sources: Iterable[Path], runs: Path) -> list[str]:
    """Take all sessions of folders and zip files into ``runs``; return a line for each.

    All are taken or none is, and nothing that is there is written over: raises ArtefactError for
    a source that holds no session, a session that cannot be read, and one that is there with other
    content. One that has not ended is passed over.
    """
    return [found.told for found in _taken(sources, runs)]


class Found(NamedTuple):
    """What is told of a session that was found, and whether it has ended."""

    told: str
    ended: bool = True


def _taken(sources: Iterable[Path], runs: Path) -> list[Found]:
    given = list(sources)
    if not given:
        raise ArtefactError("nothing to import: name folders or zip files that hold sessions")
    found: list[Found] = []
    staged: dict[str, Path] = {}
    runs.mkdir(parents=True, exist_ok=True)
    # hidden, so that nobody takes it for a session
    with tempfile.TemporaryDirectory(prefix=".import-", dir=runs) as temporary:
        stage = Path(temporary).resolve()
        for source in given:
            with _opened(source) as artefacts:
                found += [_staged(artefact, runs, stage, staged) for artefact in artefacts]
        _move(staged, runs)
    return found


def _staged(artefact: Artefact, runs: Path, stage: Path, staged: dict[str, Path]) -> Found:
    """Copy a session that is not there yet to the stage; return what is told of it."""
    name, status = artefact.document()
    if status == "running":
        return Found(f"passed over {name}: it has not ended ({artefact.place})", ended=False)
    there = staged.get(name, runs / name)
    if not there.exists():
        staged[name] = stage / name
        artefact.copy(stage / name)
        return Found(f"imported {name} ({artefact.place})")
    if artefact.is_stored_in(there):
        return Found(f"{name} is there already ({artefact.place})")
    raise ArtefactError(
        f"{artefact.place} is a session of the name {name}, which {runs} has with other content: "
        "remove the one that is not wanted"
    )


def _move(staged: Mapping[str, Path], runs: Path) -> None:
    """Move the sessions to where they belong: all of them or, if one cannot be, none."""
    moved: list[str] = []
    try:
        for name, folder in staged.items():
            folder.rename(runs / name)
            moved.append(name)
    except OSError:
        for name in moved:
            (runs / name).rename(staged[name])
        raise


@contextmanager
def _opened(source: Path) -> Iterator[list[Artefact]]:
    """Open a folder or zip file, and list the sessions that it holds at any depth."""
    if source.is_dir():
        yield _sessions_in(source, dict(_files_of(source)))
        return
    if not source.exists():
        raise ArtefactError(f"there is no {source}: expected a folder or a zip file")
    try:
        with zipfile.ZipFile(source) as archive:
            yield _sessions_in(source, _files_in(archive))
    except ArtefactError as error:
        raise ArtefactError(f"cannot import {source}: {error}") from error
    except OSError:
        raise
    except Exception as error:
        # of a damaged file zipfile and zlib raise a dozen kinds, such as zlib.error
        raise ArtefactError(
            f"cannot read {source}: {type(error).__name__}: {error}; expected a folder, or a zip "
            "file that is whole"
        ) from error


def _sessions_in(source: Path, files: Files) -> list[Artefact]:
    """Put each file to the session in whose folder it lies; raises ArtefactError without any."""
    found: dict[PurePosixPath, dict[str, Callable[[], IO[bytes]]]] = {
        PurePosixPath(path).parent: {} for path in sorted(files) if path.endswith("session.json")
    }
    for path, opened in files.items():
        for folder in PurePosixPath(path).parents:
            inside = str(PurePosixPath(path).relative_to(folder))
            if folder in found and FILES.fullmatch(inside):
                found[folder][inside] = opened
    if not found:
        raise ArtefactError(f"{source} holds no session: expected a folder with session.json")
    return [Artefact(str(PurePosixPath(source, folder)), f) for folder, f in found.items()]


def _files_of(folder: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Yield the files below a folder; links are not followed, and what is hidden is left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(parent, name)
            if not file.is_symlink():
                yield file.relative_to(folder).as_posix(), partial(_open, file)


def _open(file: Path) -> IO[bytes]:
    return file.open("rb")


def _files_in(archive: zipfile.ZipFile) -> Files:
    """Return what opens the files of an archive; raises ArtefactError for one not to be trusted."""
    members = archive.infolist()
    if len(members) > MOST_FILES:
        raise ArtefactError(f"it has {len(members)} files: expected at most {MOST_FILES}")
    files: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        path = member.filename.replace("\\", "/")
        if complaint := _complaint(member, path):
            raise ArtefactError(f"{path!r:.80} in it {complaint}")
        if path in files:
            raise ArtefactError(f"{path!r:.80} is in it twice")
        if not member.is_dir():
            files[path] = member
    size = sum(member.file_size for member in files.values())
    if size > MOST_BYTES:
        raise ArtefactError(f"it unpacks to {size} bytes: expected at most {MOST_BYTES}")
    return {path: partial(archive.open, member) for path, member in files.items()}


def _complaint(member: zipfile.ZipInfo, path: str) -> str:
    """Say why a member of an archive is not to be trusted; "" where it is."""
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in path.split("/"):
        return "leads out of the folder that it would be unpacked to"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device: expected files"
    if member.flag_bits & 1:
        return "is encrypted"
    # of others, zipfile unpacks a whole block, however large it gets
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that is not read: expected deflate, as usual"
    return ""


def _equal(one: Callable[[], IO[bytes]], other: Callable[[], IO[bytes]]) -> bool:
    with one() as first, other() as second:
        while True:
            block = first.read(BLOCK_BYTES)
            if block != second.read(BLOCK_BYTES):
                return False
            if not block:
                return True
