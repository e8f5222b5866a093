"""The colours and dashes of lines: the same everywhere, and told apart."""

import hashlib
import json
from importlib.resources import files

from normbench.models.families import FAMILIES
from normbench.report.styles import COLOURS, norm_style, regularizer_style


def test_known_norms_are_told_apart_whichever_stand_beside_them() -> None:
    names = [
        family.spelling.replace(":G", ":4").replace(":S", ":16") for family in FAMILIES.values()
    ]
    assert len({norm_style(name) for name in names}) == len(FAMILIES)


def test_groups_have_a_colour_in_common_and_a_dash_each() -> None:
    styles = [norm_style(f"group:{2**power}") for power in range(8)]
    assert len({style.colour for style in styles}) == 1
    assert len({style.dash for style in styles}) == 8


def test_a_norm_of_ones_own_has_a_style_by_its_name_that_no_known_one_has() -> None:
    known = {norm_style(name) for name in ("none", "batch", "layer", "rms", "instance", "frn")}
    for name in ("mypkg.norms:MyNorm", "größe:Norm", "a:b</script>"):
        assert norm_style(name) == norm_style(name)
        assert norm_style(name) not in known
        assert norm_style(name).colour in COLOURS


def test_strengths_of_a_regularizer_are_told_apart_by_dashes() -> None:
    weak, strong = regularizer_style("l1:0.0001"), regularizer_style("l1:0.01")
    assert weak.colour == strong.colour != regularizer_style("l2:0.01").colour
    assert weak.dash != strong.dash
    assert regularizer_style("none").dash == ()
    assert regularizer_style("l1:0.001+l2:0.01").colour in COLOURS


def test_the_charting_library_is_the_one_that_its_note_says() -> None:
    vendor = files("normbench.report") / "assets" / "vendor"
    note = json.loads((vendor / "vendor.json").read_text(encoding="utf-8"))
    library = (vendor / "echarts.min.js").read_bytes()
    assert hashlib.sha256(library).hexdigest() == note["sha256"]
    assert f'"{note["version"]}"'.encode() in library
    # it stands in a script element of the page
    assert b"</script" not in library
