"""The plugin of `normbench run`: lets pytest call itself by what the user has typed."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.prog = "normbench run"
