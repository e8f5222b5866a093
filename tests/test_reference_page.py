"""docs/reference.md is what the docstrings say today."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_docstrings_say() -> None:
    script = ROOT / "perf" / "reference_page.py"
    spec = importlib.util.spec_from_file_location("reference_page", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == module.page(), "run `make reference`"
