"""A Ray cluster of three nodes on this machine (`pytest -m ray`, needs the extra `ray`): tiny weights on CPUs."""

import contextlib
import json
import threading
from dataclasses import replace
from queue import SimpleQueue

import pytest
from helpers import LONG, SMALL
from serving_jobs import GIVEN, JOBS, arrive, file_of, give, made_alone, pipeline_at, place_in
from serving_kit import client_of, ended, posted, served, until

from kandinsky.batch.prompts import make_items
from kandinsky.batch.run import run_batch
from kandinsky.cli.main import main
from kandinsky.serving.batch import Workers, run_batch_on
from kandinsky.serving.messages import Done, Failed, Free, Make
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.store import Store
from kandinsky.serving.worker import Place

pytestmark = pytest.mark.ray
SETTINGS = {"seed": 1, "time_length": 1, "width": 64, "height": 64}
PROMPTS = [f"a cat, take {number}" for number in range(12)]


@pytest.fixture(scope="module")
def wanted(pipe, tmp_path_factory):
    """What one process makes of the prompts."""
    folder = tmp_path_factory.mktemp("wanted")
    run_batch(pipe, make_items(PROMPTS, SETTINGS, model_set=SMALL), folder)
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


@pytest.fixture(scope="module")
def cluster():
    """Its head, which has no cores to give away; this process is on it.

    The head asks twice a second whether a node is there, so that one that was killed is missed after 2 s, not 15: what
    answers nothing is still given as long as usual.
    """
    pytest.importorskip("kandinsky.serving.ray", exc_type=ImportError)  # first: it tells ray what not to do
    utils = pytest.importorskip("ray.cluster_utils")
    often = {"health_check_period_ms": 500}
    cluster = utils.Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": often})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def nodes(cluster):
    """The cluster, and its nodes besides the head: three of one core each, with nothing on them.

    Those of the test before stay. Nodes that it lost are replaced, and those that it added are removed.
    """
    others = list(cluster.worker_nodes)
    others += [cluster.add_node(num_cpus=1) for _ in range(3 - len(others))]
    cluster.wait_for_nodes(LONG)
    until(lambda: cluster.global_state.available_resources().get("CPU") == 3)
    yield cluster, others
    ray_module().ray.shutdown()
    for node in cluster.worker_nodes - set(others):
        cluster.remove_node(node)


@pytest.fixture
def place(small_weights):
    return Place(weights=str(small_weights), device="cpu", variables={"OMP_NUM_THREADS": "1"})


def made(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


def test_the_command_and_its_restart(nodes, small_weights, tmp_path, wanted, capsys):
    cluster, _ = nodes
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:4]))
    command = ["generate", "--prompts", str(tmp_path / "prompts.txt"), "--save-path", str(tmp_path / "videos")]
    command += ["--weights", str(small_weights), "--device", "cpu", "--seed", "1", "--time-length", "1"]
    command += ["--width", "64", "--height", "64", "--parallelism", "none", "--ray", cluster.address]
    assert main(command) == 0
    assert made(tmp_path / "videos") == {name: wanted[name] for name in list(made(tmp_path / "videos"))}
    assert len(made(tmp_path / "videos")) == 4
    assert "4 made, 0 done before" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 made, 4 done before" in capsys.readouterr().out


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """Of a `Place`: weights with LoRAs; and one process with them."""
    found = place_in(tmp_path_factory.mktemp("adapted"))
    return found, pipeline_at(found)


@pytest.fixture(scope="module")
def alone(adapted, tmp_path_factory):
    """What one process makes of the jobs."""
    files = made_alone(adapted[1], tmp_path_factory.mktemp("alone"))
    return {name: file.read_bytes() for name, file in files.items()}


@contextlib.contextmanager
def running(cluster, place, folder):
    """A store, and a scheduler before the workers of a cluster."""
    connection = ray_module().Cluster(cluster.address, place)
    with Store(folder) as store:
        scheduler = Scheduler(store, connection.starts(0, connection.room()))
        scheduler.start()
        connection.grow_scheduler(scheduler)
        yield store, scheduler
        scheduler.drain()
        scheduler.wait_until_gone(LONG)
    connection.close()


def ray_module():
    from kandinsky.serving import ray

    return ray


def test_files_of_clients_and_loras_get_to_the_nodes(nodes, place, adapted, alone, tmp_path):
    cluster, _ = nodes
    with running(cluster, replace(place, **adapted[0]), tmp_path) as (store, _):
        ids = {name: arrive(store, asked) for name, asked in JOBS.items()}
        assert {
            name: file_of(store, job_id).read_bytes() == alone[name] for name, job_id in ids.items()
        } == dict.fromkeys(JOBS, True)


def test_a_batch_with_pictures_and_loras(nodes, place, adapted, tmp_path):
    (cluster, _), (_, pipe) = nodes, adapted
    give(tmp_path)
    image, video, mask = (str(tmp_path / GIVEN[name]) for name in ("image", "video", "mask"))
    lines = [
        {"text": "a cat", "image": image},
        {"text": "a cat", "video": video, "strength": 0.5},
        {"text": "a cat", "video": video, "mask": mask, "loras": {"two": 1.0}},
        "a dog",
    ]
    settings = {**SETTINGS, "loras": {"one": 0.5, "two": 0.0}}
    run_batch(pipe, make_items(lines, settings, model_set=pipe.model_set), tmp_path / "alone")
    connection = ray_module().Cluster(cluster.address, replace(place, **adapted[0]))
    workers = Workers(connection.starts(0, connection.room()))
    found = run_batch_on(workers, make_items(lines, settings, model_set=pipe.model_set), tmp_path / "cluster")
    assert found.failed == {}
    assert made(tmp_path / "cluster") == made(tmp_path / "alone")
    connection.close()


def test_a_group_on_one_node(nodes, place, tmp_path):
    cluster, _ = nodes
    cluster.add_node(num_cpus=2)
    with running(cluster, replace(place, processes=2), tmp_path) as (store, scheduler):
        assert list(scheduler.hands) == ["ray-0"]
        assert file_of(store, arrive(store, JOBS["first frame"])).stat().st_size > 1000


def test_a_batch_while_a_node_is_killed(nodes, place, tmp_path, wanted):
    from kandinsky.serving.ray import Cluster

    cluster, others = nodes
    connection = Cluster(cluster.address, place)
    assert connection.room() == 3
    items = make_items(PROMPTS, SETTINGS, model_set=SMALL)
    result = []
    workers = Workers(connection.starts(0, 3))
    run = threading.Thread(target=lambda: result.append(run_batch_on(workers, items, tmp_path)))
    run.start()
    until(lambda: len(made(tmp_path)) >= 3 or not run.is_alive())
    cluster.remove_node(others[0], allow_graceful=False)
    run.join()
    assert (result[0].made, result[0].failed) == (12, {})
    assert made(tmp_path) == wanted
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().split("\n") if line]
    assert sum(line["status"] == "done" for line in lines) == 12
    connection.close()


def test_a_server_while_a_node_is_killed_and_another_joins(nodes, place, tmp_path, wanted, monkeypatch):
    from kandinsky.serving import ray as ray_module

    cluster, others = nodes
    monkeypatch.setattr(ray_module, "LOOK", 0.5)
    connection = ray_module.Cluster(cluster.address, place)
    with Store(tmp_path) as store:
        scheduler = Scheduler(store, connection.starts(0, connection.room()))
        scheduler.start()
        connection.grow_scheduler(scheduler)
        with served(scheduler) as address, client_of(address) as client:
            ids = [posted(client, prompt=prompt, seed=number)["id"] for number, prompt in enumerate(PROMPTS[:8], 1)]
            until(lambda: store.counts()["completed"] >= 2)
            cluster.remove_node(others[0], allow_graceful=False)
            cluster.add_node(num_cpus=2)
            until(lambda: len(scheduler.hands) >= 4)  # the lost one's may wait for room for ever
            videos = [ended(client, job_id) for job_id in ids]
            assert [video["status"] for video in videos] == ["completed"] * 8
            contents = [client.get(f"/v1/videos/{job_id}/content").content for job_id in ids]
            assert contents == [wanted[f"{number:04}.mp4"] for number in range(1, 9)]
        scheduler.drain()
        scheduler.wait_until_gone(LONG)
    connection.close()


def test_a_node_is_killed_in_the_middle_of_an_extension(nodes, place, adapted, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_module(), "LOOK", 0.5)
    cluster, others = nodes
    for node in others[1:]:
        cluster.remove_node(node)
    with running(cluster, replace(place, **adapted[0]), tmp_path) as (store, scheduler):
        job_id = arrive(store, JOBS["extension"])
        until(lambda: (now := scheduler.live.now(job_id)) and now.step)
        cluster.remove_node(others[0], allow_graceful=False)
        cluster.add_node(num_cpus=1)
        assert file_of(store, job_id).read_bytes() == alone["extension"]
        assert store.get(job_id).kills == 1


def test_a_job_whose_files_are_gone_fails_alone(tmp_path):
    said = []
    worker = object.__new__(ray_module().RayWorker)
    worker._report = lambda _worker, message: said.append(message)
    worker.send(Make("video_1", JOBS["edit"], str(tmp_path / "gone")))
    assert [type(message) for message in said] == [Failed, Free]
    assert said[0].code == "internal_error"


def test_a_node_without_room_for_the_files_fails_the_job_alone(tmp_path):
    actor = object.__new__(ray_module().Actor)
    actor._said, actor._folder, actor._files = SimpleQueue(), tmp_path / "taken", {}
    actor._folder.write_bytes(b"")  # a file where the folder would be
    actor.tell(Make("video_1", JOBS["edit"], "", files={"given_video.mp4": b"x"}))
    assert [type(actor._said.get()) for _ in range(2)] == [Failed, Free]


def test_a_result_that_is_gone_fails_the_job_alone(tmp_path):
    actor = object.__new__(ray_module().Actor)
    actor._files = {"video_1": tmp_path / "video_1" / "video.mp4"}
    assert actor._with_file(Done("video_1")).code == "internal_error"


def test_what_comes_after_the_connection_opens_no_new_one(nodes, place):
    """A thread that waits for a worker asks ray itself, which would connect again."""
    module = ray_module()
    connection = module.Cluster(nodes[0].address, place)
    waiting = module.ray.put(1)
    connection.close()
    with pytest.raises(Exception, match=r"ray\.init|nitialized|onnect"):
        module.ray.wait([waiting])
    assert not module.ray.is_initialized()


def test_no_cluster(place, monkeypatch):
    from kandinsky.serving import ray as module

    monkeypatch.setattr(module.ray, "init", lambda **_: pytest.fail("it would try for minutes"))
    with pytest.raises(ValueError, match=r"ray='127\.0\.0\.1:1': no such cluster"):
        module.Cluster("127.0.0.1:1", place)


def test_a_worker_that_ends_after_the_connection_opens_no_new_one(monkeypatch):
    from kandinsky.serving import ray as module

    called = []
    monkeypatch.setattr(module.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(module.ray, "kill", called.append)
    worker = object.__new__(module.RayWorker)
    worker._actor = "its actor"
    worker.kill()
    assert called == []


def test_a_message_that_comes_after_the_connection_opens_no_new_one(monkeypatch):
    from kandinsky.serving import ray as module

    monkeypatch.setattr(module.ray, "is_initialized", lambda: False)
    with pytest.raises(ConnectionError, match="is closed"):
        module._got(None)
