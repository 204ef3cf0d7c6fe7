"""The server's process: where it listens, and its signals."""

import signal
import socket
import threading

import httpx
import pytest
from helpers import SMALL
from serving_kit import ASKED, Hands, until

from kandinsky.serving import server as server_module
from kandinsky.serving.http import make_app
from kandinsky.serving.messages import Refused
from kandinsky.serving.metrics import Metrics
from kandinsky.serving.options import Options
from kandinsky.serving.retention import Limits
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.server import Server, listen, serve
from kandinsky.serving.store import Store


def test_a_port_that_is_taken_or_none_is_named():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert port > 0
        with pytest.raises(ValueError, match=rf"port={port}, host='127.0.0.1': .*[Ii]n use"):
            listen("127.0.0.1", port)
    for wrong in (-1, 2**16):
        with pytest.raises(ValueError, match=f"port={wrong}: allowed is 0 to 65535"):
            listen("127.0.0.1", wrong)
    with pytest.raises(ValueError, match=r"host='no.such.name.invalid'"):
        listen("no.such.name.invalid", 0)


def test_a_socket_that_could_not_listen_is_closed(monkeypatch):
    made = []

    class Socket(socket.socket):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    with listen("127.0.0.1", 0) as first:
        monkeypatch.setattr(server_module.socket, "socket", Socket)
        with pytest.raises(ValueError, match="port="):
            listen("127.0.0.1", first.getsockname()[1])
    assert [one.fileno() for one in made] == [-1]


@pytest.fixture
def hands(tmp_path):
    with Store(tmp_path) as store:
        yield Hands(store)


@pytest.fixture
def serving(hands, monkeypatch):
    """A server on a thread; (the server, its scheduler, its address, the thread)."""
    made, run = [], Server.run

    def kept(server, sockets):
        made.append(server)
        run(server, sockets=sockets)

    monkeypatch.setattr(Server, "run", kept)
    threads = []

    def begin(limits=Limits()):  # noqa: B008
        def start(name, report):
            from serving_kit import HandWorker

            hands.workers.append(HandWorker(name, report))
            return hands.workers[-1]

        log = lambda event, **facts: hands.lines.append((event, facts))  # noqa: E731
        hands.scheduler = Scheduler(hands.store, {"w": start}, log=log)
        app = make_app(hands.scheduler, Options(model_set=SMALL), metrics=Metrics(), log=log)
        listener = listen("127.0.0.1", 0)
        arguments = {"limits": limits, "log": log}
        thread = threading.Thread(target=serve, args=(app, hands.scheduler, listener), kwargs=arguments, daemon=True)
        thread.start()
        threads.append((thread, listener))
        until(lambda: made and made[0].started and hands.workers)
        return made[0], f"http://127.0.0.1:{listener.getsockname()[1]}", thread

    yield begin
    for thread, listener in threads:
        hands.scheduler.kill()
        thread.join(10)
        listener.close()


def test_the_first_signal_drains_and_the_second_one_ends(serving, hands):
    server, address, thread = serving()
    job = hands.store.create([ASKED], owner="local")[0]
    hands.workers[0].ready()
    until(lambda: hands.workers[0].got)
    server.handle_exit(signal.SIGTERM, None)
    until(lambda: httpx.get(f"{address}/ready").json()["status"] == "draining")
    assert httpx.post(f"{address}/v1/videos", json={"prompt": "a"}).json()["error"]["code"] == "draining"
    assert httpx.get(f"{address}/v1/videos/{job.id}").json()["status"] == "in_progress"
    assert thread.is_alive()
    server.handle_exit(signal.SIGTERM, None)
    thread.join(10)
    assert not thread.is_alive()
    assert hands.workers[0].ended
    assert hands.store.get(job.id).is_open  # the next server takes it up


def test_it_ends_when_what_runs_is_done(serving, hands):
    server, _, thread = serving()
    jobs = [hands.store.create([ASKED], owner="me")[0] for _ in range(2)]
    hands.workers[0].ready()
    until(lambda: hands.workers[0].got)
    server.handle_exit(signal.SIGINT, None)
    until(lambda: hands.scheduler.draining)
    hands.workers[0].finish()
    thread.join(10)
    assert not thread.is_alive()
    assert [hands.store.get(job.id).status for job in jobs] == ["completed", "queued"]


def test_it_ends_when_no_worker_can_ever_load(serving, hands):
    _, _, thread = serving()
    hands.workers[0].report(hands.workers[0], Refused("ValueError: no such device", argument=True))
    hands.workers[0].die()
    thread.join(10)
    assert not thread.is_alive()
    assert hands.scheduler.refused.reason == "ValueError: no such device"


def test_old_jobs_go_and_a_look_that_fails_is_not_the_last(serving, hands, monkeypatch):
    monkeypatch.setattr(server_module, "TIDY", 0.02)
    looks, tidy = [], server_module.tidy

    def sometimes(store, limits):
        looks.append(store)
        if len(looks) == 1:
            raise OSError(28, "No space left on device")
        return tidy(store, limits)

    monkeypatch.setattr(server_module, "tidy", sometimes)
    job = hands.store.create([ASKED], owner="me")[0]
    hands.store.cancel(job.id)
    now = hands.store.clock()
    hands.store.clock = lambda: now + 3 * 86400
    serving(Limits(keep_days=2))
    until(lambda: hands.store.get(job.id) is None)
    until(lambda: ("job deleted", {"job": job.id, "reason": "kept long enough"}) in hands.lines)
    assert [event for event, _ in hands.lines if "tidying" in event] == ["tidying failed"]
