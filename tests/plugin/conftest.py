"""Projects to run pytest in: each with every way to spread its tests, or in one process alone."""

import pytest

from ..conftest import Project

ALONE = ("-p", "no:xdist")


@pytest.fixture(params=[ALONE, ("-n", "0"), ("-n", "2")], ids=["no xdist", "n0", "n2"])
def project(
    request: pytest.FixtureRequest,
    modules_loaded: None,
    one_thread: None,
    pytester: pytest.Pytester,
) -> Project:
    """Return a project that is run without xdist, with no workers, and with two."""
    return Project(pytester, *request.param)


@pytest.fixture
def alone(modules_loaded: None, one_thread: None, pytester: pytest.Pytester) -> Project:
    """Return a project that one process runs: for what workers cannot do, or do no differently."""
    return Project(pytester, *ALONE)
