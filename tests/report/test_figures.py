"""Figures for papers, as SVG and PNG without a browser, and the pictures of the README."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from normbench.report.page import write_figures
from normbench.storage.session import read_session

from ..storage.stored import edit_document, edit_rows
from .sessions import stored


def test_figures_are_drawn_for_papers(tmp_path: Path) -> None:
    session = stored(tmp_path, ("batch", "layer"))
    folder, files = session.folder, write_figures(session)
    assert sorted(file.name for file in files if file.suffix == ".svg") == [
        "accuracy-digits.svg",
        "activations-digits-3-epochs.svg",
        "batch-size-digits-3-epochs-l2-0.001.svg",
        "batch-size-digits-3-epochs-none.svg",
        "confusion-digits-3-epochs.svg",
        "curves-digits-3-epochs-l2-0.001.svg",
        "curves-digits-3-epochs-none.svg",
        "weights-digits-3-epochs.svg",
    ]
    curves = (folder / "figures" / "curves-digits-3-epochs-none.svg").read_text()
    # texts stay texts, so that they can be searched and edited
    assert ">batch</text>" in curves
    assert ">test accuracy (%)</text>" in curves
    assert ">batch size 64</text>" in curves
    with Image.open(folder / "figures" / "curves-digits-3-epochs-none.png") as picture:
        assert picture.width == 1080
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or ()}
    assert (0x00, 0x72, 0xB2) in colours
    assert (0xD5, 0x5E, 0x00) in colours
    assert write_figures(session)[0].read_bytes() == files[0].read_bytes()


def test_weights_are_drawn_at_the_batch_size_that_has_every_regularizer(tmp_path: Path) -> None:
    # as on CIFAR-10, whose published rows without a regularizer have a batch size of their own
    folder = stored(tmp_path, ("batch", "layer"), sizes=(64, 32)).folder

    def kept(row: dict[str, Any]) -> dict[str, Any] | None:
        spec = row["spec"]
        return row if spec["regularizer"] == "none" or spec["batch_size"] == 64 else None

    edit_rows(folder, kept)
    cases = json.loads((folder / "session.json").read_text(encoding="utf-8"))["cases"]
    edit_document(folder, cases=list(filter(kept, cases)))
    write_figures(read_session(folder))
    weights = (folder / "figures" / "weights-digits-3-epochs.svg").read_text()
    assert ">none</text>" in weights
    assert ">l2:0.001</text>" in weights


def test_the_readmes_pictures_are_taken_from_a_session(
    report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "perf")
    pictures = importlib.import_module("pictures")
    monkeypatch.setattr(pictures, "DOCS", tmp_path)
    pictures.main(str(report.parent))
    sizes = {}
    for file in tmp_path.iterdir():
        with Image.open(file) as picture:
            sizes[file.name] = picture.size
    assert sorted(sizes) == ["report-mistakes.png", "report-norms.png", "report.png"]
    assert sizes["report.png"][0] == 1280
    assert all(width > 900 and height > 250 for width, height in sizes.values())
    lacking = shutil.copytree(report.parent, tmp_path / "lacking")
    edit_rows(lacking, lambda row: {**row, "activations": []})
    with pytest.raises(SystemExit, match="its report has no section activations"):
        pictures.main(str(lacking))
