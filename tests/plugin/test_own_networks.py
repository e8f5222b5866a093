"""A network of the user's own, from its cases file to the stored session."""

import importlib
import sys

import pytest

from normbench.commands.main import main

from ..conftest import Project, tiny_grid

NETWORK = """
from torch import nn

class Small(nn.Module):
    def __init__(self, norm, shape, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(shape[0], 8, 3), norm(8), nn.ReLU())
        self.classifier = nn.Linear(8, classes)

    def forward(self, images):
        return self.classifier(self.features(images).mean((2, 3)))
"""


def test_it_is_trained_and_its_session_is_read_where_it_is_gone(
    alone: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    module = alone.write("small_nets.py", NETWORK)
    alone.pytester.syspathinsert()
    grid = tiny_grid(norms=["batch", "layer_chw"])
    alone.write("bench/cases/tiny.toml", grid.replace('"digits"\nrec', '"small_nets:Small"\nrec'))
    alone.run("-k", "none-b64").assert_outcomes(passed=2, deselected=2)
    assert {row.spec.network for row in alone.rows} == {"small_nets:Small"}
    assert [len(row.activations) for row in alone.rows] == [1, 1]
    module.unlink()
    sys.modules.pop("small_nets", None)
    importlib.invalidate_caches()
    (alone.session / "report.html").unlink()
    assert main(["report", str(alone.session)]) == 0
    page = (alone.session / "report.html").read_text(encoding="utf-8")
    assert "features.1" in page
    assert capsys.readouterr().err == ""


def test_one_that_does_not_fit_ends_the_session_in_one_line(alone: Project) -> None:
    alone.write("seven_nets.py", NETWORK.replace("8, classes)", "8, 7)"))
    alone.pytester.syspathinsert()
    alone.write(
        "bench/cases/tiny.toml", tiny_grid().replace('"digits"\nrec', '"seven_nets:Small"\nrec')
    )
    result = alone.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: *tiny.toml: network: seven_nets:Small returned float32 of shape (2, 7) for 2 "
            "images of 1 x 8 x 8: expected float32 of shape (2, 10), a logit for each class"
        ]
    )
