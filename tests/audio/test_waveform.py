"""Pictures to sound against what the published code computed with torchaudio (float32, CPU)."""

import torch
from audio_helpers import golden_tensors
from helpers import relative_error

from kandinsky.audio import waveform as w


def mel_of(signal: torch.Tensor) -> torch.Tensor:
    """The forward direction: mel amplitudes `[512, columns]` of samples."""
    window = torch.hann_window(w.WINDOW)
    spectrum = torch.stft(
        signal, w.N_FFT, w.HOP, w.WINDOW, window, center=True, pad_mode="reflect", return_complex=True
    )
    return w.mel_filters().float() @ spectrum.abs()


def test_golden_picture_of_a_signal():
    given = golden_tensors()
    mel = mel_of(given["signal_int16"].float())
    picture = (255 - 255 * (mel / mel.max()) ** 0.25).clamp(0, 255).byte().flip(0)
    off = (picture.int() - given["audio_spectrogram_image"].int()).abs()
    assert (off <= 1).double().mean() >= 0.999


def test_golden_linear_amplitudes():
    given = golden_tensors()
    mel = w.mel_amplitudes(given["audio_spectrogram_image"][..., None].expand(-1, -1, 3))
    linear = w.linear_amplitudes(mel)
    assert relative_error(linear[::40, ::10], given["linear_rows_0_40"]) < 1e-3


def test_round_trip():
    """The published way back is 0.119 off."""
    picture = golden_tensors()["audio_spectrogram_image"][..., None].expand(-1, -1, 3)
    signal = w.waveform_of(picture, torch.Generator().manual_seed(0), device=torch.device("cpu"))
    assert signal.shape == (200 * 441,)
    there, back = w.mel_amplitudes(picture), mel_of(signal)
    assert relative_error(back / back.norm(), there / there.norm()) <= 0.13
