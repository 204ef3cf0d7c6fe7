"""What comes back of a sound."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kandinsky.output.result import Result


@dataclass(frozen=True, kw_only=True)
class SoundResult(Result):
    """A sound, and the file that has it if one was asked for.

    Its `timings` are `encode` (frames and prompts to embeddings), `sample`, `decode` (latents to the spectrogram),
    `waveform`, `write` and `total`; those that there were.

    Args:
        waveform: float32 `[samples]` within -1 and 1, on the CPU.
        sample_rate: samples a second.
        spectrogram: uint8 `[512, columns, 3]`, the picture that the sound was made of; a column is 10 ms.
        path: of the video with its sound.
    """

    waveform: Tensor
    sample_rate: int
    spectrogram: Tensor
    path: Path | None
