"""A call: what comes back, what is written, and what ends it."""

import copy
import threading

import pytest
import torch
from audio_helpers import SCHEDULER, FakeEncoder, golden_embeddings, packets, picture_hash, small_unet, small_vae
from helpers import relative_error

from kandinsky.audio.embeddings import EmbeddingCache
from kandinsky.audio.parts import SoundParts
from kandinsky.audio.pipeline import Kandinsky4V2APipeline
from kandinsky.audio.record import read_sound_record
from kandinsky.errors import DecodeError, StoppedError, VideoError
from kandinsky.output.video import read_comment

pytestmark = pytest.mark.usefixtures("quick_waveform")
COLUMNS = 96
"""Of a second, in 32s."""


@pytest.fixture
def call(sound_pipe, silent):
    """One call in two steps, with the golden embeddings."""

    def call(pipe=sound_pipe, **settings):
        given = {"embeddings": golden_embeddings(), "seed": 3, "num_inference_steps": 2, **settings}
        return pipe(settings.pop("video", silent), **{k: v for k, v in given.items() if k != "video"})

    return call


@pytest.fixture
def encoding(tmp_path):
    """A pipeline with an encoder and a cache."""
    encoder = FakeEncoder()
    parts = {"unet": small_unet(), "vae": small_vae(), "scheduler": SCHEDULER, "progress": False}
    return encoder, Kandinsky4V2APipeline(
        SoundParts(**parts, encoder=encoder, cache=EmbeddingCache(tmp_path / "kept", "a fake"))
    )


def test_a_result(call):
    result = call()
    assert result.waveform.shape == ((COLUMNS - 1) * 441,)
    assert result.waveform.dtype == torch.float32
    assert result.sample_rate == 44_100
    assert result.spectrogram.shape == (512, COLUMNS, 3)
    assert result.spectrogram.dtype == torch.uint8
    assert result.path is None
    assert result.seed == 3
    assert list(result.timings) == ["encode", "sample", "decode", "waveform", "total"]
    assert 20 * result.waveform.square().mean().sqrt().log10() == pytest.approx(-30, abs=0.01)


@pytest.mark.slow
def test_the_seed_alone_decides(call):
    first, second, other = call(), call(), call(seed=4)
    assert torch.equal(first.waveform, second.waveform)
    assert not torch.equal(first.spectrogram, other.spectrogram)
    drawn = call(seed=None)
    assert torch.equal(call(seed=drawn.seed).waveform, drawn.waveform)


def test_the_callers_settings_do_not_count(call):
    first = call()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.set_default_dtype(torch.float64)
        try:
            second = call()
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(first.waveform, second.waveform)


@pytest.mark.slow
def test_guidance(call):
    """A scale of 1 is without, and then the negative half does not count."""
    given = golden_embeddings()
    other = type(given)(given.text.flip(0)[[0, 0]], given.video[[1, 1]])
    without, same = (
        call(guidance_scale=1),
        call(guidance_scale=1, embeddings=type(given)(given.text[[1, 1]], given.video[[1, 1]])),
    )
    assert torch.equal(without.spectrogram, same.spectrogram)
    assert torch.equal(without.spectrogram, call(guidance_scale=1, embeddings=other).spectrogram)
    assert not torch.equal(without.spectrogram, call().spectrogram)


def test_a_file(call, silent, tmp_path):
    target = tmp_path / "v.mp4"
    result = call(save_path=target)
    assert result.path == target
    assert list(result.timings)[-2:] == ["write", "total"]
    assert picture_hash(target) == picture_hash(silent)
    (video, picture_end), (audio, sound_end) = packets(target, "v"), packets(target, "a")
    assert (video, audio) == ("h264", "aac")
    assert abs(picture_end - sound_end) <= picture_end / 9
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_the_same_call_writes_the_same_bytes(call, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        call(save_path=tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_the_record(call, tmp_path):
    call(save_path=tmp_path / "v.mp4", guidance_scale=3)
    record = read_sound_record(tmp_path / "v.mp4")
    assert record is not None
    assert (record.seed, record.num_inference_steps, record.guidance_scale, record.seconds) == (3, 2, 3.0, 1)
    assert (record.prompt, record.encoder) == (None, None)  # embeddings were given
    call(save_path=tmp_path / "v.mp4", metadata=False)
    assert read_comment(tmp_path / "v.mp4") is None


def test_the_encoder_is_asked_for_both_halves(encoding, silent, tmp_path):
    encoder, pipe = encoding
    result = pipe(
        silent, "rain", negative_prompt="wind and", seed=0, num_inference_steps=1, save_path=tmp_path / "v.mp4"
    )
    assert encoder.asked == [((3, 96, 64, 64), "rain"), ((3, 96, 64, 64), "wind and")]
    record = read_sound_record(result.path)
    assert record is not None
    assert (record.prompt, record.negative_prompt, record.encoder) == ("rain", "wind and", "a fake")


def test_embeddings_are_kept(encoding, silent, monkeypatch):
    encoder, pipe = encoding
    settings = {"seed": 0, "num_inference_steps": 1}
    first = pipe(silent, "rain", **settings)
    monkeypatch.setattr(encoder, "check", lambda: pytest.fail("it is not needed"))
    assert torch.equal(pipe(silent, "rain", **settings).waveform, first.waveform)
    assert len(encoder.asked) == 2


def test_encode(encoding, silent):
    """The negative half is of a black video."""
    from kandinsky.audio.clip import clip_of

    embeddings = encoding[1].encode(clip_of(silent), "rain", "wind")
    assert embeddings.video[0].abs().max() == 0
    assert embeddings.video[1, 0].max() < embeddings.video[1, -1].min()  # the clip grows brighter


def test_without_encoder_and_embeddings(sound_pipe, silent):
    with pytest.raises(ValueError, match="embeddings=None: this pipeline has no encoder"):
        sound_pipe(silent)


def test_an_encoder_that_nobody_vouched_for(silent):
    """Refused before anything runs: the scheduler here is none."""
    parts = SoundParts(unet=small_unet(), vae=small_vae(), scheduler={}, encoder=FakeEncoder(refusal="not trusted"))
    with pytest.raises(ValueError, match="not trusted"):
        Kandinsky4V2APipeline(parts)(silent)


def test_a_callback_sees_each_step_and_stops(call, tmp_path):
    seen = []

    def on_step(step, total, latents):
        seen.append((step, total, tuple(latents.shape)))
        return step < 2

    with pytest.raises(StoppedError):
        call(num_inference_steps=4, on_step=on_step, save_path=tmp_path / "v.mp4")
    assert seen == [(1, 5, (1, 4, 64, 12)), (2, 5, (1, 4, 64, 12))]
    assert list(tmp_path.iterdir()) == []


def test_interrupt(call, sound_pipe):
    """From another thread; the next call goes on."""

    def on_step(_step, _total, _latents):
        thread = threading.Thread(target=setattr, args=(sound_pipe, "interrupt", True))
        thread.start()
        thread.join()

    with pytest.raises(StoppedError):
        call(on_step=on_step)
    assert call().waveform.isfinite().all()


def test_what_cannot_be_written_is_kept(call, tmp_path, monkeypatch):
    target = tmp_path / "v.mp4"
    target.write_bytes(b"old")
    monkeypatch.setattr("kandinsky.audio.mux.BITRATE", "no number")
    with pytest.raises(VideoError, match=r"(?s)ffmpeg failed to write .*v\.mp4: .*; the sound is in .*v\.wav"):
        call(save_path=target)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.mp4", "v.wav"]


def test_values_that_are_not_finite(call):
    broken = SoundParts(unet=small_unet(), vae=small_vae(), scheduler={**SCHEDULER, "beta_end": 1e30}, progress=False)
    with pytest.raises(DecodeError, match="not finite"):
        call(Kandinsky4V2APipeline(broken))


@pytest.mark.gpu
def test_on_a_gpu(call):
    """The same twice, and about the CPU's spectrogram: the way to a waveform is a search."""
    gpu = torch.device("cuda", 0)
    parts = SoundParts(
        unet=copy.deepcopy(small_unet()).to(gpu), vae=copy.deepcopy(small_vae()).to(gpu), scheduler=SCHEDULER
    )
    pipe = Kandinsky4V2APipeline(parts)
    first, second = call(pipe), call(pipe)
    assert torch.equal(first.waveform, second.waveform)
    assert set(first.peak_memory) == {"encode", "sample", "decode", "waveform"}
    assert relative_error(first.spectrogram, call().spectrogram) < 0.02
