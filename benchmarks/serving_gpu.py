"""Videos an hour through the server against the batch; what a preview costs; how soon a cancel frees the GPU.

    python benchmarks/serving_gpu.py [--count 10] [--seconds 12] [--weights FOLDER]
    python benchmarks/serving_gpu.py --size tiny --device cpu      # 128x128, to try the benchmark itself

Full-size random weights on one GPU (they cost the same as real ones), 672x384, written once to `--scratch` (21 GB; a
folder in memory is quick). One after the other, each in a process of its own with two videos before it:

- `batch`: `run_batch` over the prompts.
- `server`: `kandinsky serve` with one worker; the same prompts are posted at once by plain HTTP. From the first POST to
  the last end, as the store has it.
- `preview`: then as many again with a client that follows each; seconds of the sampling stage more, for each step.
- `cancel`: jobs cancelled after their second step, while another one waits: seconds from the POST of the cancel to the
  begin of the other, besides a step's seconds.

The limit: the batch's rate, since the same pipeline makes the same videos; and for a cancel one step. The last line is
JSON.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from script import device_in, finish, free_port, machine, parser_of

TINY = Path(__file__).parents[1] / "weights" / "tiny"
PROMPT = "a woolly mammoth in deep snow, take {}"
BATCH = """
import json, sys, time
from pathlib import Path
from kandinsky.batch import make_items, run_batch
from kandinsky.factory import get_T2V_pipeline
weights, device, settings, prompts, folder = json.loads(sys.argv[1])
pipe = get_T2V_pipeline(device, cache_dir=weights, local_files_only=True, progress=False)
for name, some in (("warm", prompts[:2]), ("timed", prompts)):
    items = make_items(some, settings, model_set=pipe.model_set)
    result = run_batch(pipe, items, Path(folder) / name)
print(json.dumps({"seconds": result.seconds, "failed": result.failed}))
"""


class Server:
    """`kandinsky serve` in a process of its own."""

    def __init__(self, weights: str, device: str, folder: Path):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log.jsonl"
        command = [sys.executable, "-m", "kandinsky", "serve", "--port", str(port), "--data", str(folder / "data")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*command, "--weights", weights, "--device", device], stderr=log)
        while not self._is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(self.log.read_text(encoding="utf-8"))
            time.sleep(0.5)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("GET", "/ready")["status"] == "ready"
        return False

    def ask(self, method: str, path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  # our own
            self.url + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return json.load(answer)

    def follow(self, job_id: str, until: str = "", step: int = 0) -> list[float]:
        """Times at which previews came, to the end of the job, or to a step of it."""
        came: list[float] = []
        with urllib.request.urlopen(f"{self.url}/v1/videos/{job_id}/events") as stream:  # noqa: S310
            for line in stream:
                if line.startswith(b"event: preview"):
                    came.append(time.time())
                    if until == "step" and len(came) == step:
                        break
        return came

    def lines(self) -> list[dict]:
        found = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in found if line.startswith("{")]

    def time_of(self, event: str, job_id: str) -> float:
        """When the log says that something happened to a job."""
        while True:
            for line in self.lines():
                if line["event"] == event and line["job"] == job_id:
                    return line["time"]
            time.sleep(0.005)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def through_server(server: Server, bodies: list[dict], *, follow: bool = False) -> tuple[float, list[dict]]:
    """Seconds for all jobs, and the jobs."""
    start = time.time()
    ids = [server.ask("POST", "/v1/videos", body)["id"] for body in bodies]
    threads = [threading.Thread(target=server.follow, args=(job_id,)) for job_id in ids if follow]
    for thread in threads:
        thread.start()
    end = max(server.time_of("job completed", job_id) for job_id in ids)
    for thread in threads:
        thread.join()
    return end - start, [server.ask("GET", f"/v1/videos/{job_id}") for job_id in ids]


def cancels(server: Server, body: dict, number: int) -> list[float]:
    """Seconds from each cancel to the begin of the next job."""
    found = []
    for _ in range(number):
        stops, follows = (server.ask("POST", "/v1/videos", body)["id"] for _ in range(2))
        server.follow(stops, "step", 2)
        start = time.time()
        server.ask("POST", f"/v1/videos/{stops}/cancel")
        found.append(server.time_of("job begins", follows) - start)
        server.ask("POST", f"/v1/videos/{follows}/cancel")
        server.time_of("job cancelled", follows)
    return found


def weights_in(given: argparse.Namespace) -> str:
    if given.size == "tiny":
        return str(TINY)
    if given.weights:
        return given.weights
    from kandinsky.checkpoint.random_weights import make_random_weights

    folder = Path(given.scratch) / "kandinsky-random-full"
    return str(folder if folder.is_dir() else make_random_weights(folder, "full", device="cuda"))


def measured(weights: str, device: str, settings: dict, prompts: list[str], folder: Path) -> dict[str, object]:
    """All figures; `settings` are those of a batch."""
    start, count = time.perf_counter(), len(prompts)
    task = json.dumps([weights, device, settings, prompts, str(folder)])
    run = subprocess.run([sys.executable, "-c", BATCH, task], check=True, capture_output=True, text=True)
    batch = json.loads(run.stdout.splitlines()[-1])
    print(f"batch: {batch}, {time.perf_counter() - start:.0f} s", flush=True)
    body = {"seconds": settings["time_length"], "size": f"{settings['width']}x{settings['height']}"}
    bodies = [{**body, "prompt": prompt, "seed": 1 + number} for number, prompt in enumerate(prompts)]
    server = Server(weights, device, folder)
    try:
        through_server(server, bodies[:1])
        through_server(server, bodies[:1], follow=True)
        seconds, plain = through_server(server, bodies)
        print(f"server: {seconds:.2f} s, {time.perf_counter() - start:.0f} s", flush=True)
        _, followed = through_server(server, bodies[: max(count // 3, 1)], follow=True)
        waits = cancels(server, bodies[0], 3)
    finally:
        server.end()
    same = sum(
        (folder / "data" / "jobs" / video["id"] / "video.mp4").read_bytes() == made.read_bytes()
        for video, made in zip(plain, sorted((folder / "timed").glob("*.mp4")), strict=True)
    )
    sampling = [statistics.median(video["timings"]["sample"] for video in videos) for videos in (plain, followed)]
    step = sampling[0] / 4
    rates = {"batch": 3600 * count / batch["seconds"], "server": 3600 * count / seconds}
    return {
        "videos_an_hour": {name: round(rate, 1) for name, rate in rates.items()},
        "server_less_by": round(1 - rates["server"] / rates["batch"], 4),
        "equal_files": same,
        "step_seconds": round(step, 4),
        "preview_ms_a_step": round(1000 * (sampling[1] - sampling[0]) / 4, 1),
        "cancel_to_next_job_seconds": [round(wait, 3) for wait in waits],
        "within_a_step": max(waits) <= step,
        "all_seconds": round(time.perf_counter() - start),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--count", type=int, help="videos (default: 10, at tiny size 2)")
    parser.add_argument("--seconds", type=int, help="of each video (default: 12, at tiny size 1)")
    parser.add_argument("--weights", help="folder of the weights; without it random ones are made")
    parser.add_argument("--scratch", default="/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir())  # noqa: PTH112, S108
    given = parser.parse_args(arguments)
    device = device_in(given)
    count, seconds, width, height = (10, 12, 672, 384) if given.size == "full" else (2, 1, 128, 128)
    count, seconds = given.count or count, given.seconds or seconds
    weights = weights_in(given)
    prompts = [PROMPT.format(number) for number in range(count)]
    settings = {"seed": 1, "time_length": seconds, "width": width, "height": height}
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(weights, device.type, settings, prompts, Path(folder))
    finish({**machine(device), "size": given.size, "count": count, "seconds": seconds, **figures}, given)


if __name__ == "__main__":
    main()
