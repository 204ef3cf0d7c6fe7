"""The server's process: where it listens, and its signals."""

import contextlib
import resource
import signal
import socket
import sys
import threading

import httpx
import pytest
from helpers import LONG, SMALL
from serving_kit import ASKED, Hands, client_of, until

from kandinsky.serving import server as server_module
from kandinsky.serving.http import make_app
from kandinsky.serving.messages import Refused
from kandinsky.serving.metrics import Metrics
from kandinsky.serving.options import Options
from kandinsky.serving.retention import Limits
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.server import Server, listen, most_files, serve
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


@pytest.fixture(autouse=True)
def of_the_process():
    """What a server sets for all of its process is put back."""
    interval, files = sys.getswitchinterval(), resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    sys.setswitchinterval(interval)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


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
        thread.join(LONG)
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
    thread.join(LONG)
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
    thread.join(LONG)
    assert not thread.is_alive()
    assert [hands.store.get(job.id).status for job in jobs] == ["completed", "queued"]


def test_it_ends_when_no_worker_can_ever_load(serving, hands):
    _, _, thread = serving()
    hands.workers[0].report(hands.workers[0], Refused("ValueError: no such device", argument=True))
    hands.workers[0].die()
    thread.join(LONG)
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


def test_a_connection_that_asks_for_nothing_is_closed_and_one_that_waits_is_not(serving, monkeypatch):
    monkeypatch.setattr(server_module, "GREETING", 0.3)
    server, address, _ = serving()
    place = ("127.0.0.1", int(address.rpartition(":")[2]))
    with socket.create_connection(place) as nothing, socket.create_connection(place) as half:
        half.sendall(b"POST /v1/videos HTTP/1.1\r\nHost: local")
        for one in (nothing, half):
            one.settimeout(LONG)
            assert one.recv(10) == b""
    monkeypatch.setattr(server_module, "GREETING", LONG)  # what follows is looked at when it waits, and not before
    with client_of(address) as client:
        job_id = client.post("/v1/videos", json={"prompt": "a", "size": "64x64"}).json()["id"]
        with client.stream("GET", f"/v1/videos/{job_id}/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: queued"
            looked = threading.Event()
            for connection in list(server.server_state.connections):
                connection.loop.call_soon_threadsafe(connection._look)
            connection.loop.call_soon_threadsafe(looked.set)
            assert looked.wait(LONG)
            assert httpx.post(f"{address}/v1/videos/{job_id}/cancel").status_code == 200
            assert "event: failed" in lines
        assert client.get("/health").status_code == 200


def test_a_head_without_an_end_is_given_up(serving):
    _, address, _ = serving()
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as endless:
        endless.settimeout(LONG)
        endless.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):  # more than the buffers of a connection would take
                endless.sendall(b"a" * 2**20)
        with contextlib.suppress(ConnectionError):
            assert endless.recv(100).startswith(b"HTTP/1.1 400")
    assert httpx.get(f"{address}/health", headers={"X": "a" * 40_000}).status_code == 200


def test_a_later_head_that_does_not_come_closes_the_connection(serving, monkeypatch):
    monkeypatch.setattr(server_module, "GREETING", 0.3)
    _, address, _ = serving()
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as slow:
        slow.settimeout(LONG)
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):
            answer += slow.recv(1000)
        slow.sendall(b"GET /health HTTP/1.1\r\nHo")
        assert slow.recv(10) == b""


def test_what_uvicorn_says_is_a_line_of_the_log(serving, hands):
    _, address, _ = serving()
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as stranger:
        stranger.sendall(b"\x16\x03\x01\r\n\r\n")
        assert stranger.recv(100).startswith(b"HTTP/1.1 400")
    until(lambda: ("server warning", {"message": "Invalid HTTP request received."}) in hands.lines)


def test_a_client_that_goes_away_in_its_body_is_no_fault(serving, hands):
    server, address, _ = serving()
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as stranger:
        stranger.sendall(b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        stranger.sendall(b"Content-Length: 9\r\n\r\n{")
        until(lambda: server.server_state.tasks)
    until(lambda: not server.server_state.tasks)
    assert httpx.get(f"{address}/health").status_code == 200
    assert [event for event, _ in hands.lines if event.startswith("server")] == []


def test_one_connection_too_many_is_closed_and_the_others_go_on(serving, monkeypatch):
    monkeypatch.setattr(server_module, "SPARE", 2)
    monkeypatch.setattr(server_module, "most_files", lambda: server_module.BACKLOG + 2 + 2)
    _, address, _ = serving()
    place = ("127.0.0.1", int(address.rpartition(":")[2]))
    with client_of(address) as client, socket.create_connection(place):
        assert client.get("/health").status_code == 200
        with socket.create_connection(place) as late:
            late.settimeout(LONG)
            assert late.recv(10) == b""
        assert client.get("/health").status_code == 200

    def is_there_room():
        with contextlib.suppress(httpx.TransportError):  # until the others are seen to have gone
            return httpx.get(f"{address}/health").status_code == 200

    until(is_there_room)


def test_as_many_files_as_the_system_has():
    assert most_files() >= 256
    assert most_files() == most_files()
