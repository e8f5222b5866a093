from pathlib import Path

import pytest

from normbench.check.properties import Checked, Property, Standing
from normbench.storage.checks import read_checks, store_check

BROKEN = Property("function", "batch of 1", Standing.BROKEN, "off by 3.5")
HELD = Property("module", "pickle", Standing.HOLDS, "as it should be")


def checked(subject: str, kind: str = "norm") -> Checked:
    return Checked(kind, subject, (HELD, BROKEN), seconds=1.5)


def test_what_checks_have_found_is_read_as_it_was_stored_norms_first(tmp_path: Path) -> None:
    found = [checked("digits", "network"), checked("l1:0.001", "regularizer"), checked("my:Norm")]
    for each in found:
        store_check(tmp_path, each)
    assert read_checks(tmp_path) == tuple(reversed(found))


def test_a_check_that_is_made_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    store_check(tmp_path, checked("batch"))
    again = Checked("norm", "batch", (HELD,), seconds=2)
    store_check(tmp_path, again)
    assert read_checks(tmp_path) == (again,)


def test_a_session_without_checks_has_none(tmp_path: Path) -> None:
    assert read_checks(tmp_path) == ()


def test_names_that_no_file_can_have_are_kept_apart(tmp_path: Path) -> None:
    found = {checked("a/b:C"), checked("a.b:C")}
    for each in found:
        store_check(tmp_path, each)
    assert set(read_checks(tmp_path)) == found


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"kind": "norm"}', '{"kind": "norm", "properties": [{}]}']
)
def test_a_damaged_check_is_told_with_its_file(tmp_path: Path, text: str) -> None:
    store_check(tmp_path, checked("batch"))
    (file,) = (tmp_path / "checks").iterdir()
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{file}: "):
        read_checks(tmp_path)


def test_counts_and_what_is_broken_are_told() -> None:
    assert checked("batch").counts == {"holds": 1, "broken": 1}
    assert checked("batch").broken == ["function, batch of 1: off by 3.5"]
    assert repr(checked("batch")) == "Checked(norm batch: 1 broken)"
