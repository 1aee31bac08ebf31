"""`pytest tests/stories --regenerate` writes the stories anew: read the diff."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write what the machines say into the stories")
