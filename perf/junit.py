"""What pytest tells in its JUnit file."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any


def junit_outcome(junit: Path) -> dict[str, Any]:
    """Return how many tests there were and passed, and what failed and was skipped, with reasons.

    ``{"tests": None}`` stands for a file that is missing or was not written to its end.
    """
    try:
        cases = list(ElementTree.parse(junit).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return {"tests": None}
    failed: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        for part in case:
            if part.tag in ("failure", "error"):
                failed[name] = (part.text or part.get("message") or "")[-4000:]
            elif part.tag == "skipped":
                skipped[name] = part.get("message") or ""
    passed = len(cases) - len(failed) - len(skipped)
    return {"tests": len(cases), "passed": passed, "failed": failed, "skipped": skipped}
