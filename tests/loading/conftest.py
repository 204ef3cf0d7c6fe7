"""A process of a group that nobody has begun."""

import pytest


@pytest.fixture
def launcher(monkeypatch):
    """The variables of a launcher of two processes."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
