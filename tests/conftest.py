"""What holds for all tests."""

import pytest

from tests.secret_search import SecretSearch


def pytest_configure(config: pytest.Config) -> None:
    """No test may leave a secret where none is meant to be."""
    config.pluginmanager.register(SecretSearch(config), "secret search")
