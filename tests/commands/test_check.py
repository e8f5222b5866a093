"""``normbench check``: its table, its JSON, how it ends, and what it refuses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from normbench.check.properties import Checked, Property, Standing
from normbench.commands.main import main
from normbench.report.checks import print_checked

NORM = """
from torch import nn
import torch.nn.functional as F


class Batch(nn.BatchNorm2d):
    def forward(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


class Right(nn.GroupNorm):
    normbench_claims = {claims}

    def __init__(self, channels):
        super().__init__(1, channels)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a module of norms, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def write(project: Path, name: str, claims: str = "{}") -> None:
    (project / f"{name}.py").write_text(NORM.replace("{claims}", claims), encoding="utf-8")


def test_regularizers_and_networks_are_shown_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--regularizer", "l1:0.001+l2:0.01", "--network", "digits"]) == 0
    told = capsys.readouterr().out
    assert "regularizer l1:0.001+l2:0.01\n" in told
    assert "acts on every parameter" in told
    assert "regularizer l1:0.001+l2:0.01: 3 holds (" in told
    assert "network digits: 23 holds (" in told


NETWORK = """
from torch import nn

class Small(nn.Module):
    def __init__(self, norm, shape, classes):
        super().__init__()
        self.norm = norm(shape[0])
        self.classifier = nn.Linear(shape[0], classes)

    def forward(self, images):
        return self.classifier(self.norm(images).square().mean((2, 3)))
"""


def test_a_network_of_ones_own_is_checked_on_the_images_of_a_data_set(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "own_nets.py").write_text(NETWORK, encoding="utf-8")
    assert main(["check", "--network", "own_nets:Small"]) == 0
    told = capsys.readouterr().out
    assert "for 1, 2 and 7 images of 1 x 28 x 28" in told
    # a scale and a shift of one channel, and the classifier
    assert re.search(r"parameters +holds +22\b", told)
    assert main(["check", "--network", "own_nets:Small", "--dataset", "cifar10"]) == 0
    assert "for 1, 2 and 7 images of 3 x 32 x 32" in capsys.readouterr().out
    assert main(["check", "--network", "own_nets:Small", "--dataset", "imagenet"]) == 2
    assert "unknown data set 'imagenet': expected one of digits" in capsys.readouterr().err


def test_as_json_each_check_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--regularizer", "none", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["subject"]) == ("regularizer", "none")
    assert found["properties"][1] == {
        "section": "penalty",
        "name": "acts on nothing",
        "standing": "holds",
        "told": "0 parameters are moved",
    }


def test_what_a_norm_prints_is_no_part_of_the_json(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "printing.py").write_text(
        "from torch import nn\n\n\nclass Prints(nn.Identity):\n"
        "    def __init__(self, channels):\n        super().__init__()\n\n"
        "    def forward(self, x):\n        print('hello')\n        return x\n"
    )
    main(["check", "printing:Prints", "--json"])
    shown = capsys.readouterr()
    assert json.loads(shown.out)[0]["subject"] == "printing:Prints"
    assert "hello" in shown.err


def test_a_wrong_name_ends_it_before_anything_is_checked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "--regularizer", "none", "--network", "resnet"]) == 2
    assert capsys.readouterr().out == ""


def test_what_fits_no_network_leaves_the_others_their_checks(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "misfit.py").write_text("def build(channels):\n    return None\n")
    assert main(["check", "misfit:build", "--regularizer", "none"]) == 2
    shown = capsys.readouterr()
    assert "regularizer none: 3 holds" in shown.out
    assert shown.err.startswith("normbench: misfit:build returned a NoneType for layer 'check'")


def test_what_is_broken_is_told_again_at_the_end_in_lines_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = Property("function", "batch of 1", Standing.BROKEN, "off by 3.5 " + 40 * "and more ")
    print_checked(Checked("norm", "batch", (broken,), 1.0))
    assert f"broken: {'function, batch of 1: ' + broken.told}\n" in capsys.readouterr().out


def test_a_norm_in_the_current_folder_that_is_wrong_ends_it_with_1(project: Path) -> None:
    write(project, "wrong_at_evaluation")
    command = [sys.executable, "-m", "normbench", "check", "wrong_at_evaluation:Batch", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=project)
    assert done.stderr == ""
    assert done.returncode == 1
    (found,) = json.loads(done.stdout)
    broken = [each["name"] for each in found["properties"] if each["standing"] == "broken"]
    assert broken == ["independent of the other images, evaluation"]


@pytest.mark.parametrize("seed", ["-1", "one", "1.5", str(2**32)])
def test_a_seed_is_a_whole_number(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["check", "batch", "--seed", seed])
    assert f"{seed!r}: expected a whole number from 0 to 2**32 - 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to check: name a NORM, a --regularizer or a --network"),
        (["bach"], "unknown norm 'bach': expected one of none, batch"),
        (["group:x"], "unknown norm 'group:x': expected group:G with a whole number G"),
        (["group:0"], "unknown norm 'group:0': expected group:G with a whole number G"),
        (["--regularizer", "l3:1"], "unknown regularizer 'l3': expected one of l1, l2, l2-weights"),
        (["--network", "resnet"], "unknown network 'resnet': expected one of digits"),
    ],
)
def test_what_cannot_be_checked_ends_it_with_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"normbench: {told}")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ("['N']", r"is a list: expected a dict with keys out of axes, affine, "),
        ("{'axis': ['N']}", "has an unknown key 'axis': expected one of axes, affine, "),
        ("{'axes': ['M']}", r"has axes = \['M'\]: expected a list of axes out of N, C, C/G, H, W"),
        (
            "{'affine': 'yes'}",
            "has affine = 'yes': expected one of none, per channel, per channel and one for all",
        ),
        ("{'batch_independent': 1}", "has batch_independent = 1: expected True or False"),
        ("{'invariances': 'scale'}", "has invariances = 'scale': expected a list out of scale,"),
    ],
)
def test_claims_that_are_none_are_told(
    project: Path, claims: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"claiming_{abs(hash(claims))}"
    write(project, name, claims)
    assert main(["check", f"{name}:Right"]) == 2
    assert re.match(f"normbench: normbench_claims of {name}:Right {told}", capsys.readouterr().err)


def test_claims_are_held_to(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "claiming_means_of_maps", "{'axes': ['H', 'W'], 'affine': 'per channel'}")
    assert main(["check", "claiming_means_of_maps:Right", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    broken = {p["name"]: p["told"] for p in found["properties"] if p["standing"] == "broken"}
    assert broken["elements that share a statistic, training"] == (
        "taken over C, H, W, where H, W is claimed"
    )
    assert set(broken) == {
        f"elements that share a statistic, {m}" for m in ("training", "evaluation")
    }
