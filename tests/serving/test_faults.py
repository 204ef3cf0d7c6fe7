"""What is left when a process is killed, the disk is full or the database locked: tried for real, with tiny weights."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys

import httpx
import pytest
from helpers import LONG, fork_server
from serving_kit import ASKED, ThreadWorker, ended, names_in, posted, until
from serving_process import GO_ON, MARK, PORT, Pause, run_server, starts

from kandinsky.cli.main import main
from kandinsky.serving import scheduler as scheduler_module
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.store import Store

STAGES = ("loading", "sampling", "decoding", "writing")


@pytest.fixture(scope="module")
def wanted(pipe, tmp_path_factory):
    """The file that a call with `ASKED` makes."""
    path = tmp_path_factory.mktemp("wanted") / "video.mp4"
    pipe(ASKED.text, path, seed=ASKED.seed, time_length=1, width=64, height=64)
    return path.read_bytes()


class Server:
    """A server's process, which is killed at the end."""

    def __init__(self, folder, weights):
        self.folder, self.weights = folder, weights
        self.client = httpx.Client(timeout=LONG)

    def start(self, pause=None):
        (self.folder / PORT).unlink(missing_ok=True)
        self.process = fork_server().Process(target=run_server, args=(str(self.folder), str(self.weights), pause))
        self.process.start()
        until((self.folder / PORT).exists)
        self.client.base_url = f"http://127.0.0.1:{(self.folder / PORT).read_text()}"
        until(self.answers)

    def answers(self):
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("/health").status_code == 200
        return False

    def kill(self):
        self.process.kill()
        self.process.join()

    def log(self):
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def server(tmp_path, small_weights):
    server = Server(tmp_path, small_weights)
    yield server
    server.kill()
    server.client.close()


def stopped_at(folder):
    """The number of the worker's process that has stopped."""
    return int(until(lambda: (folder / MARK).is_file() and (folder / MARK).read_text()))


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_server_is_killed(server, tmp_path, wanted, stage):
    server.start(Pause(stage, str(tmp_path)))
    ids = [posted(server.client, seed=seed)["id"] for seed in (ASKED.seed, 4)]
    worker = stopped_at(tmp_path)
    server.kill()
    until(lambda: is_gone(worker))  # it does not go on without its server
    server.start()
    videos = [ended(server.client, job_id) for job_id in ids]
    assert [video["status"] for video in videos] == ["completed"] * 2
    assert server.client.get(f"/v1/videos/{ids[0]}/content").content == wanted
    # What was sampled is not sampled again.
    assert ("sample" in videos[0]["timings"]) is (stage in ("loading", "sampling"))
    assert [line["job"] for line in server.log() if line["event"] == "job completed"] == ids
    assert names_in(tmp_path / "data" / "jobs") == sorted(f"{job_id}/video.mp4" for job_id in ids)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_is_killed(tmp_path, small_weights, wanted, stage, monkeypatch):
    monkeypatch.setattr(scheduler_module, "PAUSES", (0.01, 0.1))
    with Store(tmp_path / "data") as store:
        ids = [store.create([ASKED], owner="me")[0].id for _ in range(2)]
        scheduler = Scheduler(store, starts(small_weights, Pause(stage, str(tmp_path)), fork_server()))
        scheduler.start()
        os.kill(stopped_at(tmp_path), signal.SIGKILL)
        until(lambda: store.counts()["completed"] == 2)
        jobs = [store.get(job_id) for job_id in ids]
        assert [store.file_of(job).read_bytes() for job in jobs] == [wanted] * 2
        assert jobs[0].kills == (stage != "loading")
        assert ("sample" in jobs[0].timings) is (stage in ("loading", "sampling"))
        assert scheduler.hands["w"].all_ends == 1
        scheduler.drain()
        scheduler.wait_until_gone(LONG)


@pytest.mark.slow
def test_sigterm_finishes_what_runs_and_keeps_the_rest(server, tmp_path):
    server.start(Pause("sampling", str(tmp_path)))
    runs, waits = (posted(server.client)["id"] for _ in range(2))
    worker = stopped_at(tmp_path)
    os.kill(server.process.pid, signal.SIGTERM)
    until(lambda: server.client.get("/ready").json()["status"] == "draining")
    assert server.client.get(f"/v1/videos/{runs}").json()["status"] == "in_progress"
    (tmp_path / GO_ON).touch()
    server.process.join(LONG)
    assert server.process.exitcode == 0
    until(lambda: is_gone(worker))
    with Store(tmp_path / "data") as store:
        assert [store.get(job_id).status for job_id in (runs, waits)] == ["completed", "queued"]


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own; the number of bytes is the caller's."""
    folders = []

    def mount(size):
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, check=False).returncode:
            pytest.skip("this user may not mount a small disk")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


@pytest.mark.slow
def test_the_disk_is_full(pipe, small_disk):
    """A job that cannot be written says so; a job that cannot be noted is not promised; and room makes all well."""
    folder = small_disk("512k")
    with Store(folder) as store:
        scheduler = Scheduler(store, {"w": lambda name, report: ThreadWorker(pipe, name, report)})
        scheduler.start()
        first = store.create([ASKED], owner="me")[0].id
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:  # until it is full: the scheduler writes meanwhile
                file.write(bytes(4096))
        scheduler.wake()
        with pytest.raises(sqlite3.OperationalError, match="disk"):
            for _ in range(1000):
                store.create([ASKED], owner="me")
        kept = sum(store.counts().values())
        filler.unlink()
        job = until(lambda: not (job := store.get(first)).is_open and job)
        assert (job.status, job.code) in (("failed", "disk_full"), ("completed", None))
        until(lambda: store.counts()["queued"] + store.counts()["in_progress"] == 0) if kept < 20 else None
        again = store.create([ASKED], owner="me")[0].id
        assert store.get(again).status in ("queued", "in_progress")
        assert sum(store.counts().values()) == kept + 1
        assert store._database.one("PRAGMA integrity_check")[0] == "ok"
        scheduler.drain()
        scheduler.wait_until_gone(LONG)


def test_two_servers_on_one_folder(tmp_path, capsys, small_weights):
    with Store(tmp_path):
        arguments = [
            "serve",
            "--data",
            str(tmp_path),
            "--port",
            "0",
            "--device",
            "cpu",
            "--weights",
            str(small_weights),
        ]
        assert main(arguments) == 2
    assert "another server works in this folder" in capsys.readouterr().err


@pytest.mark.slow
def test_weights_that_are_not_there_end_the_server(tmp_path):
    command = [sys.executable, "-m", "kandinsky", "serve", "--data", str(tmp_path / "data"), "--port", "0"]
    (tmp_path / "weights").mkdir()
    command += ["--device", "nonsense", "--weights", str(tmp_path / "weights")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG)
    assert run.returncode == 2
    assert "the weights cannot be loaded: ValueError: " in run.stderr
    assert "nonsense" in run.stderr
