"""What became of planted faults: a line of JSON for each, written as the search for it ends."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from normbench.storage.documents import Document, require_schema, validated

# pytest's exit code where a test failed, or the session came to no pass.
FAILED = 1


class StageEnd(Document):
    """How a stage of the suite ended: pytest's exit code after ``seconds`` of wall-clock.

    ``test`` is the first one that failed, ``told`` what it, or else pytest, said.
    """

    stage: str
    code: int
    seconds: float
    test: str = ""
    told: str = ""

    @property
    def red(self) -> bool:
        """Whether a test failed: the stage has found something."""
        return self.code == FAILED

    @property
    def broke(self) -> bool:
        """Whether the stage came to no answer, as where pytest could not run it."""
        return self.code not in (0, FAILED)


class Detection(Document):
    """The search for a planted fault: the stages that it went through, up to one that found it.

    ``stages`` are all that it was to go through. ``fault`` is empty where none was planted.
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    fault: str
    part: str
    stages: tuple[str, ...]
    ends: tuple[StageEnd, ...]
    date: str
    torch: str
    processor: str
    commit: str | None = None

    @property
    def found(self) -> StageEnd | None:
        """The stage that found the fault; None where no stage did."""
        return next((end for end in self.ends if end.red), None)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds from the first stage's start to the last one's end."""
        return sum(end.seconds for end in self.ends)


def append_detection(file: Path, detection: Detection) -> None:
    """Add a line to the file, which is made if it is not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(detection.model_dump(mode="json", by_alias=True)) + "\n")


def read_detections(file: Path) -> list[Detection]:
    """Return what append_detection has written, of a fault the last; none without the file.

    A last line that is not whole, which a killed writer leaves, is cut off. Raises ValueError for
    anything else that is no such line.
    """
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    found: dict[str, Detection] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        place = Path(f"{file}, line {number}")
        try:
            values = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{place}: it is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{place}: expected a JSON object, came {line:.60}")
        require_schema(values, place, 1)
        detection = validated(Detection, values, place)
        found[detection.fault] = detection
    return list(found.values())
