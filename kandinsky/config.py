"""What the model is: sizes of the DiT, of the model set around it, the published preset, and the names of options.

Frozen dataclasses, validated where they are built. Architecture fields have no defaults: a number that is not in
a checkpoint or in a preset does not exist. This module computes nothing about videos (see `video_shape`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

VERSION = "0.1.0"
"""Of this library; `pyproject.toml` reads it here."""
MODULES = ("dit", "vae", "text_embedder")
"""The components that run on a device each, by the names of the published `device_map`."""
PRECISIONS = ("exact", "fast")
"""What `precision` may be; `model.precision` has a value for each."""
PARALLELISMS = ("tensor", "sequence", "none")
"""What `parallelism` may be; `parallel.apply` has a value for each."""
ATTENTIONS = ("torch", "cudnn", "bounded", "float8", "flash_attn_2", "flash_attn_3")
"""What `attention` may be, besides "auto"; `model.attention` has a backend for each."""
KERNELS = ("auto", "triton", "torch")
"""What `kernels` may be."""
INTERPOLATORS = ("ffmpeg", "network")
"""What may make frames between frames: ffmpeg's motion-compensated filter, if nobody says otherwise, or our network."""
FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127
"""The largest number of float32, in which low-rank weights are added."""
MEMORY_MODES = ("resident", "staged", "blocks", "disk")
"""What `memory` may be for a component, besides "auto" for all; `memory.modes` says what each means."""


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Sizes of the MMDiT transformer.

    Args:
        in_visual_dim, out_visual_dim: latent channels read and predicted.
        in_text_dim: width of the text embedder's output.
        time_dim: width of the timestep embedding after its MLP.
        patch_size: latent frames, rows and columns in a token.
        model_dim, ff_dim: width of the token stream and of the feed-forward's hidden layer.
        num_blocks: pairs of (local, global) transformer blocks.
        axes_dims: channels of a head that RoPE turns for time, height and width; their sum is head_dim.

    Raises:
        ValueError: a head does not divide model_dim, or an axis has an odd number of channels.
    """

    in_visual_dim: int
    in_text_dim: int
    out_visual_dim: int
    time_dim: int
    patch_size: tuple[int, int, int]
    model_dim: int
    ff_dim: int
    num_blocks: int
    axes_dims: tuple[int, int, int]

    def __post_init__(self) -> None:
        if self.model_dim % self.head_dim:
            raise ValueError(
                f"model_dim={self.model_dim} is not a multiple of head_dim={self.head_dim} "
                f"(sum of axes_dims={self.axes_dims})"
            )
        if any(dim % 2 for dim in self.axes_dims):
            raise ValueError(
                f"axes_dims={self.axes_dims}: RoPE turns pairs of channels, so every axis needs an even number"
            )

    @property
    def head_dim(self) -> int:
        return sum(self.axes_dims)


PUBLISHED_DIT = DiTConfig(
    in_visual_dim=16,
    in_text_dim=4096,
    out_visual_dim=16,
    time_dim=512,
    patch_size=(1, 2, 2),
    model_dim=3072,
    ff_dim=12288,
    num_blocks=21,
    axes_dims=(16, 24, 24),
)


@dataclass(frozen=True, kw_only=True)
class ModelSet:
    """What a set of weights was trained for, and where it is published.

    Args:
        resolution: name of the training resolution, the only one `get_T2V_pipeline(resolution=...)` takes.
        sizes: allowed (width, height) in pixels.
        max_seconds: longest clip; RoPE tables hold 128 positions, 63 s are 127 latent frames.
        text_tokens: length to which every prompt is padded or cut.
        fps: pixel frames per second.
        temporal_compression, spatial_compression: of the VAE.
        dit_file: name of the DiT checkpoint in `cache_dir`.
        dit_repository, components_repository: where the hub keeps the DiT and the other folders.
    """

    resolution: int
    sizes: tuple[tuple[int, int], ...]
    max_seconds: int
    text_tokens: int
    fps: int
    temporal_compression: int
    spatial_compression: int
    dit_file: str
    dit_repository: str
    components_repository: str


FLASH_512 = ModelSet(
    resolution=512,
    sizes=((512, 512), (736, 352), (352, 736), (672, 384), (384, 672), (544, 480), (480, 544)),
    max_seconds=63,
    text_tokens=224,
    fps=8,
    temporal_compression=4,
    spatial_compression=8,
    dit_file="kandinsky4_distil_512.pt",
    dit_repository="ai-forever/kandinsky-4-t2v-flash",
    components_repository="THUDM/CogVideoX-5b",
)

MODEL_SETS: Mapping[int, ModelSet] = MappingProxyType({FLASH_512.resolution: FLASH_512})
