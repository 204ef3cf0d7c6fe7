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


def plainly(amplitudes: torch.Tensor, phases: torch.Tensor) -> torch.Tensor:
    """Griffin-Lim over PyTorch's own transforms of all bands, as torchaudio has it."""
    settings = {"n_fft": w.N_FFT, "hop_length": w.HOP, "win_length": w.WINDOW, "window": torch.hann_window(w.WINDOW)}
    angles, before = phases, torch.zeros_like(phases)
    for _ in range(w.ITERATIONS):
        rebuilt = torch.stft(
            torch.istft(amplitudes * angles, **settings), **settings, center=True, pad_mode="reflect",
            return_complex=True,
        )  # fmt: skip
        angles = rebuilt - w.MOMENTUM / (1 + w.MOMENTUM) * before
        angles = angles / (angles.abs() + 1e-16)
        before = rebuilt
    return torch.istft(amplitudes * angles, **settings)


def test_griffin_lim_is_that_of_all_bands_and_whole_windows(monkeypatch):
    """PyTorch's windows stand in the middle of what is transformed: phases are turned for that."""
    monkeypatch.setattr(w, "ITERATIONS", 3)  # rounding grows with each
    generator = torch.Generator().manual_seed(0)
    amplitudes = torch.rand(w.HEARD, 30, generator=generator)
    phases = torch.rand(w.HEARD, 30, dtype=torch.complex64, generator=generator)
    numbers = torch.arange(w.HEARD, dtype=torch.float64)[:, None]
    turned = phases * torch.exp(-2j * torch.pi * numbers * (w.N_FFT - w.WINDOW) / 2 / w.N_FFT)
    silent = (0, 0, 0, w.N_FFT // 2 + 1 - w.HEARD)
    expected = plainly(
        torch.nn.functional.pad(amplitudes, silent), torch.nn.functional.pad(turned.to(torch.complex64), silent)
    )
    assert relative_error(w.griffin_lim(amplitudes, phases), expected) < 1e-4
