"""`kandinsky sound` and `kandinsky generate --sound`: what they make, and what they refuse before a weight is read."""

import json
import shutil
from types import SimpleNamespace

import pytest
from audio_helpers import FakeEncoder, golden_embeddings, packets, picture_hash, save_encoder, save_small
from fakes import QuickVae, changed
from helpers import SMALL, own_weights

import kandinsky.cli.sound as command_file
from kandinsky.audio.record import read_sound_record
from kandinsky.audio.sample import make_scheduler
from kandinsky.cli.common import Parser, parse_and_run
from kandinsky.cli.generate import add_generate_arguments, generate
from kandinsky.cli.main import main
from kandinsky.cli.sound import add_generate_sound, generate_with_sound
from kandinsky.output.read_record import read_record

pytestmark = pytest.mark.usefixtures("quick_waveform")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The small model of sounds and a small encoder."""
    folder = save_small(tmp_path_factory.mktemp("weights"))
    save_encoder(folder / "cogvlm2-video-llama3-chat")
    return folder


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    path = tmp_path_factory.mktemp("embeddings") / "e.safetensors"
    golden_embeddings().save(path)
    return path


@pytest.fixture
def video(silent, tmp_path):
    shutil.copy(silent, tmp_path / "v.mp4")
    return tmp_path / "v.mp4"


QUICK = ("--device", "cpu", "--no-progress", "--num-inference-steps", "1")


def test_a_sound_with_embeddings(weights, embeddings, video, tmp_path, capsys):
    assert main(["sound", str(video), "--weights", str(weights), "--embeddings", str(embeddings), *QUICK]) == 0
    target = tmp_path / "v-sound.mp4"
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"{target}: 0.95 s of sound, seed 42"
    assert [line.split()[0] for line in rest] == ["encode", "sample", "decode", "waveform", "write", "total"]
    assert picture_hash(target) == picture_hash(video)
    assert packets(target, "a")[0] == "aac"
    assert main(["show", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "sound seed: 42\n" in shown
    assert "sound devices: unet cpu, vae cpu, encoder cpu\n" in shown
    assert main(["show", str(target), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["record"], record["sound"]["seconds"]) == (None, 1)


@pytest.mark.slow
def test_a_sound_with_the_encoder(weights, video, tmp_path, capsys):
    kept = tmp_path / "kept"
    arguments = ["sound", str(video), "--weights", str(weights), "--embedding-cache", str(kept), *QUICK, "--json"]
    trusting = [
        *arguments,
        "--trust-remote-code",
        "--prompt",
        "rain",
        "--save-path",
        str(tmp_path / "a.mkv"),
        "--seed",
        "7",
    ]
    assert main(trusting) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["path"], said["seed"], said["samples"], said["sample_rate"]) == (
        str(tmp_path / "a.mkv"),
        7,
        41895,
        44100,
    )
    record = read_sound_record(tmp_path / "a.mkv")
    assert record is not None
    assert record.prompt == "rain"
    # A second time without the encoder: what it said is kept.
    assert main([*arguments, "--prompt", "rain", "--save-path", str(tmp_path / "b.mkv"), "--seed", "7"]) == 0
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "trust_remote_code=False: no embeddings of this video are given or kept"),
        (["--trust-remote-code", "--encoder-revision", "main"], 2, "encoder_revision='main'"),
        (["--embeddings", "none.safetensors"], 2, "embeddings='none.safetensors': there is no such file"),
        (["--save-path", "v.gif"], 2, "save_path='v.gif': must end with one of .mp4, .mov, .mkv"),
        (["--seed", "-1"], 2, "seed=-1"),
        (["--num-inference-steps", "0"], 2, "num_inference_steps=0"),
        (["--guidance-scale", "0"], 2, "guidance_scale=0.0"),
        (["--device", "tpu", "--trust-remote-code"], 2, "device_map='tpu'"),
        (["--weights", "nowhere"], 2, "trust_remote_code=False"),  # before weights are looked for
        (
            ["--weights", "nowhere", "--trust-remote-code"],
            1,
            "nowhere/kandinsky-4-v2a/unet/  (config.json, *.safetensors)",
        ),
    ],
)
def test_refusals(weights, video, capsys, monkeypatch, arguments, code, message):
    """Nothing is loaded."""
    monkeypatch.setattr(command_file, "_load", lambda _settings: pytest.fail("it was to load something"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("kandinsky.checkpoint.hub.check_reachable", lambda: None)
    assert main(["sound", str(video), "--weights", str(weights), "--device", "cpu", *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_sound_track_is_kept(weights, embeddings, loud, tmp_path, capsys):
    arguments = ["sound", str(loud), "--weights", str(weights), "--embeddings", str(embeddings), *QUICK]
    arguments += ["--save-path", str(tmp_path / "v.mp4")]
    assert main(arguments) == 2
    assert "--replace-audio" in capsys.readouterr().err
    assert main([*arguments, "--replace-audio", "--quiet"]) == 0
    assert picture_hash(tmp_path / "v.mp4") == picture_hash(loud)


def test_what_is_no_video(weights, tmp_path, capsys):
    (tmp_path / "v.mp4").write_bytes(b"no video")
    assert main(["sound", str(tmp_path / "v.mp4"), "--weights", str(weights), "--device", "cpu"]) == 1
    assert "is not a video that can be read" in capsys.readouterr().err


@pytest.fixture
def with_sound(pipe, sound_pipe, small_weights, weights, tmp_path, monkeypatch):
    """Runs `generate --sound` with pipelines that are there; `with_sound.order` tells when which was loaded."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, sound=None):
        parser = Parser(prog="generate")
        add_generate_arguments(parser)
        add_generate_sound(parser)

        def load(_parsed, *, prompt=None):  # noqa: ARG001  # how it is called
            run.order.append("video")
            return changed(pipe, vae=QuickVae())

        def load_sound(settings):
            run.order.append("sound")
            if sound is not None:
                return sound(settings)
            return type(sound_pipe)(SimpleNamespace(**{**vars(sound_pipe.parts), "encoder": FakeEncoder()}))

        def make(parsed, *, arguments):
            return generate(parsed, arguments=arguments, load=load)

        folder = own_weights_with_sound(tmp_path, small_weights, weights)
        given = ["--weights", str(folder), "--device", "cpu", "--no-progress", *arguments]
        return parse_and_run(
            parser, given, lambda parsed: generate_with_sound(parsed, arguments=[], load=load_sound, make=make)
        )

    run.order = []
    return run


def own_weights_with_sound(folder, small_weights, weights):
    """Both models in one folder, as they are published."""
    both = own_weights(folder / "weights", SMALL)
    for part in weights.iterdir():
        (both / part.name).unlink(missing_ok=True)
        (both / part.name).symlink_to(part)
    assert small_weights.is_dir()
    return both


SHORT = ("--sound", "--time-length", "1", "--text", "a cat", "--save-path", "v.mp4")


@pytest.mark.slow
def test_a_video_with_a_sound(with_sound, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kandinsky.audio.pipeline.make_scheduler", lambda config, _steps: make_scheduler(config, 1))
    assert with_sound(*SHORT, "--trust-remote-code", "--sound-prompt", "rain", "--json", "--seed", "5") == 0
    assert with_sound.order == ["video", "sound"]
    said = json.loads(capsys.readouterr().out)
    assert (said["num_frames"], said["seed"], said["sound"]["seed"]) == (9, 5, 5)
    path = tmp_path / "v.mp4"
    assert packets(path, "a")[0] == "aac"
    assert read_record(path).prompt == "a cat"
    sound = read_sound_record(path)
    assert sound is not None
    assert sound.prompt == "rain"
    assert main(["replay", "v.mp4", "--weights", "weights", "--no-progress"]) == 0
    assert "warning: its sound is not made again" in capsys.readouterr().err
    assert packets(tmp_path / "v-replay.mp4", "v") == ("h264", 9 / 8)


def test_without_sound_it_is_generate(with_sound, tmp_path):
    assert with_sound("--time-length", "1", "--save-path", "v.mp4", "--quiet") == 0
    assert with_sound.order == ["video"]
    assert not read_sound_record(tmp_path / "v.mp4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (SHORT, "trust_remote_code=False"),
        (("--sound", "--time-length", "0"), "--sound with --time-length 0"),
        (("--sound", "--prompts", "p.txt", "--save-path", "v"), "--sound with --prompts"),
        (("--sound", "--time-length", "1", "--save-path", "v.gif"), "must end with one of .mp4, .mov, .mkv"),
    ],
)
def test_refusals_before_the_video(with_sound, capsys, arguments, message):
    assert with_sound(*arguments) == 2
    assert message in capsys.readouterr().err
    assert with_sound.order == []


def test_a_sound_that_fails_leaves_the_video(with_sound, tmp_path, capsys):
    def broken(_settings):
        raise OSError("no such disk")

    assert with_sound(*SHORT, "--trust-remote-code", sound=broken) == 1
    assert "the video is in v.mp4, without a sound: no such disk" in capsys.readouterr().err
    assert read_record(tmp_path / "v.mp4").prompt == "a cat"


def test_an_interrupt_leaves_the_video(with_sound, tmp_path, capsys):
    def interrupted(_settings):
        raise KeyboardInterrupt

    assert with_sound(*SHORT, "--trust-remote-code", sound=interrupted) == 130
    assert "the video is in v.mp4, without a sound" in capsys.readouterr().err
    assert (tmp_path / "v.mp4").is_file()


def test_processes_that_do_not_write_make_no_sound(monkeypatch):
    """They come to their end without one."""
    parsed = SimpleNamespace(sound=True, no_distributed=False, num_gpus=2)
    monkeypatch.setattr(command_file, "writes_here", lambda: False)
    assert generate_with_sound(parsed, arguments=[], make=lambda *_a, **_k: None) is None  # type: ignore[arg-type]


def test_memory_of_the_video_is_given_back():
    """What the video's pipeline was is gone before the sound's is loaded."""
    import weakref

    class Holder:
        pass

    def make():
        holder = Holder()
        holder.own = holder  # a circle, as models have them
        make.seen = weakref.ref(holder)

    make()
    command_file.leave_gpu()
    assert make.seen() is None
