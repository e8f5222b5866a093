"""A project that has no cases, where the plugin is installed: it costs and leaves nothing."""

import pytest

HEAVY = ("torch", "torchvision", "sklearn", "pandas", "scipy", "pydantic", "matplotlib", "rich")

# Each process writes down what it has loaded when it ends.
WITNESS = f"""
import os, sys
from pathlib import Path

def pytest_unconfigure(config):
    name = getattr(config, "workerinput", {{"workerid": "controller"}})["workerid"]
    loaded = [module for module in {HEAVY} if module in sys.modules]
    plugins = config.pluginmanager.list_name_plugin()
    found = [name for name, plugin in plugins if plugin and name == "normbench.plugin"]
    Path(f"loaded-{{name}}").write_text(" ".join(found + loaded))
"""


@pytest.fixture
def foreign(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a project with two tests that ask for nothing, and a folder for temporary files."""
    monkeypatch.setenv("TMPDIR", str(pytester.mkdir("temporary")))
    pytester.makeconftest(WITNESS)
    pytester.makepyfile(test_x="def test_x(): pass\ndef test_y(): pass\n")
    return pytester


@pytest.mark.parametrize(
    ("arguments", "processes"),
    [
        (["--collect-only"], ["controller"]),
        (["-p", "no:xdist"], ["controller"]),
        (["-n", "0"], ["controller"]),
        (["-n", "2"], ["controller", "gw0", "gw1"]),
        (["-n", "2", "--collect-only"], ["controller"]),
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_loaded_and_nothing_left_behind(
    foreign: pytest.Pytester, arguments: list[str], processes: list[str]
) -> None:
    result = foreign.runpytest_subprocess("-W", "error", *arguments)
    assert result.ret == pytest.ExitCode.OK
    witnessed = {file.name: file.read_text() for file in foreign.path.glob("loaded-*")}
    assert witnessed == {f"loaded-{name}": "normbench.plugin" for name in processes}
    assert not (foreign.path / "results").exists()
    assert not list((foreign.path / "temporary").iterdir())


OWN_NAMES = """
import pytest

@pytest.fixture
def case():
    return 1

@pytest.fixture(params=[1, 2])
def claim(request):
    return request.param

@pytest.mark.cases("digits")
def test_a_fixture_of_ones_own(case):
    assert case == 2

@pytest.mark.claims
def test_a_fixture_with_parameters(claim):
    assert claim in (1, 2)

@pytest.mark.cases("digits")
@pytest.mark.parametrize("cases", [[3], [4]])
def test_a_parameter_of_ones_own(cases):
    assert cases
"""


@pytest.mark.parametrize("arguments", [["-p", "no:xdist"], ["-n", "2"]], ids=" ".join)
def test_tests_that_use_our_names_for_their_own_things_are_left_alone(
    foreign: pytest.Pytester, arguments: list[str]
) -> None:
    foreign.makepyfile(test_x=OWN_NAMES)
    result = foreign.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=4, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert not (foreign.path / "results").exists()


def test_what_a_project_parametrizes_in_a_hook_of_its_own_is_left_alone(
    foreign: pytest.Pytester,
) -> None:
    foreign.makeconftest(
        "def pytest_generate_tests(metafunc):\n"
        "    if 'case' in metafunc.fixturenames:\n"
        "        metafunc.parametrize('case', [1, 2, 3])\n"
    )
    foreign.makepyfile(
        test_x="import pytest\n@pytest.mark.cases('digits')\ndef test_x(case): assert case < 3\n"
    )
    foreign.runpytest_subprocess("-p", "no:xdist").assert_outcomes(passed=2, failed=1)
