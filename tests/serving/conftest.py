"""What tests of routes share: a server before one worker that does what the test says."""

import pytest
from serving_kit import Hands, client_of, served, until

from kandinsky.serving.store import Store


@pytest.fixture
def hands(tmp_path):
    with Store(tmp_path / "data") as store:
        hands = Hands(store).start()
        hands.workers[0].ready()
        until(lambda: hands.scheduler.is_ready)
        yield hands
        hands.scheduler.kill()


@pytest.fixture
def address(hands):
    with served(hands.scheduler) as address:
        yield address


@pytest.fixture
def client(address):
    with client_of(address) as client:
        yield client


@pytest.fixture(scope="module")
def shared_hands(tmp_path_factory):
    """As `hands`, for tests that leave nothing behind which others could see: one server for all of a file."""
    with Store(tmp_path_factory.mktemp("shared")) as store:
        hands = Hands(store).start()
        yield hands
        hands.scheduler.kill()


@pytest.fixture(scope="module")
def shared(shared_hands):
    with served(shared_hands.scheduler) as address, client_of(address) as client:
        yield client
