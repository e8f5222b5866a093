"""What Hypothesis makes of files: JSON and TOML with something in it changed, at any place.

How many each test makes is in the environment's NORMBENCH_EXAMPLES; ``make fuzz`` makes many.
"""

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# The same ones each time, so that what fails in one place fails in another: unless there are many.
EXAMPLES = int(os.environ.get("NORMBENCH_EXAMPLES", "10"))
mutated_often = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="NORMBENCH_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# Texts that mean something in some place: names, paths, numbers, code, and what no file can hold.
TEXTS = st.sampled_from(
    (
        *("", " ", "batch", "group:0", "group:-1", "group:999999999999", "digits", "mnist", "ok"),
        *("stalled", "l1:0.001", "l1:nan+l2:1", "l1:1+l1:1", "l1:", "none", "..", "../../x"),
        *(
            "/dev/null",
            "folder:/",
            "folder:",
            "nan",
            "inf",
            "1e999",
            "\x00",
            "\n",
            "\ud800",
            "é" * 99,
        ),
        *("planted_module:make", "planted_module:", ":", "2026-99-99", "x" * 5000),
    )
)
NUMBERS = st.sampled_from(
    (
        0,
        1,
        -1,
        2**31,
        2**63,
        -(2**63),
        10**400,
        0.5,
        -0.0,
        1e308,
        1e-320,
        float("nan"),
        float("inf"),
    )
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.text(max_size=5))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def place(data: st.DataObject, document: Any) -> tuple[Any, Any]:
    """Return a table or list of a document, and a key or index of it; far down less often."""
    table = document
    while True:
        keys = list(table) if isinstance(table, dict) else range(len(table))
        key = keys[data.draw(st.integers(0, len(keys) - 1), label="key")]
        inner = table[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans(), label="end"):
            return table, key
        table = inner


def mutate(data: st.DataObject, document: Any) -> Any:
    """Take something out of a document, in place, or put something else in, up to three times."""
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        if not document:
            break
        table, key = place(data, document)
        change = data.draw(st.sampled_from(("replace", "remove", "add")), label="change")
        if change == "remove":
            del table[key]
        elif change == "replace":
            table[key] = data.draw(VALUES, label="value")
        elif isinstance(table, dict):
            table[data.draw(TEXTS, label="added")] = data.draw(VALUES, label="value")
        else:
            table.append(data.draw(VALUES, label="value"))
    return document


def cut(data: st.DataObject, content: bytes) -> bytes:
    """Change some bytes in the middle of a file."""
    start = data.draw(st.integers(0, len(content)), label="start")
    length = data.draw(st.integers(0, 40), label="length")
    return content[:start] + data.draw(st.binary(max_size=10)) + content[start + length :]
