"""The encoder of T5-V1.1 (arXiv 1910.10683; gated GELU of arXiv 2002.05202) for one prompt without a mask.

Module names are those of transformers, so that its checkpoints load strictly; tests compare with its model. It stands
here because importing transformers' models takes longer than reading the weights. Not here: batches, decoder, training.

Legend:  ids: int64 [tokens]     x: [tokens, d_model]     bias: [1, heads, tokens, tokens], added to attention's logits
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDING = ("encoder.embed_tokens.weight", "shared.weight")
"""Two names of one tensor; files hold it under either."""


@dataclass(frozen=True)
class T5Config:
    """Sizes, with the names of transformers' `config.json`."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "T5Config":
        """From transformers' `config.json`.

        Raises:
            ValueError: a T5 of another kind, or a size that is missing.
        """
        kind = config.get("feed_forward_proj")
        if kind != "gated-gelu":
            raise ValueError(f"the text encoder's feed_forward_proj is {kind!r}; supported: 'gated-gelu' (T5-V1.1)")
        try:
            return cls(**{name: config[name] for name in cls.__dataclass_fields__ if name in config})
        except TypeError as error:
            raise ValueError(f"the text encoder's configuration is incomplete: {error}") from error

    def to_mapping(self) -> dict[str, Any]:
        """As transformers' `config.json` has it."""
        kind = {"architectures": ["T5EncoderModel"], "model_type": "t5", "feed_forward_proj": "gated-gelu"}
        return {**asdict(self), **kind, "is_encoder_decoder": False, "use_cache": False}


class Attention(nn.Module):
    """Attention of every token with every token; logits are not scaled."""

    def __init__(self, config: T5Config, *, has_bias: bool):
        super().__init__()
        self.config = config
        inner = config.num_heads * config.d_kv
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if has_bias:
            self.relative_attention_bias = _embedding(config.relative_attention_num_buckets, config.num_heads)

    def bias(self, tokens: int) -> Tensor:
        """What the first layer's table says of each distance; all layers add it."""
        buckets = _buckets(self.config, tokens, self.relative_attention_bias.weight.device)
        return self.relative_attention_bias(buckets).permute(2, 0, 1)[None].contiguous()

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.config.num_heads, -1)).transpose(0, 1)[None]
            for linear in (self.q, self.k, self.v)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        return self.o(attended[0].transpose(0, 1).flatten(1))


def _buckets(config: T5Config, tokens: int, device: torch.device) -> Tensor:
    """Of each pair of tokens, int64 `[tokens, tokens]`: half of the buckets are for keys behind the query.

    Half of each half are for one distance each, the rest get wider up to the largest distance.
    """
    position = torch.arange(tokens, device=device)
    distance = position[None, :] - position[:, None]
    buckets = config.relative_attention_num_buckets // 2
    exact = buckets // 2
    behind = (distance > 0).long() * buckets
    distance = distance.abs()
    ratio = torch.log(distance.float() / exact) / math.log(config.relative_attention_max_distance / exact)
    wide = (exact + (ratio * (buckets - exact)).long()).clamp(max=buckets - 1)
    return behind + torch.where(distance < exact, distance, wide)


def _embedding(rows: int, columns: int) -> nn.Embedding:
    """Without weights: to draw normal ones on the meta device, PyTorch first imports sympy, for two seconds."""
    return nn.Embedding.from_pretrained(torch.empty(rows, columns))


class GatedFeedForward(nn.Module):
    """GELU (its tanh form) of one Linear times another, and a third."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class AttentionLayer(nn.Module):
    """Norm, attention, residual."""

    def __init__(self, config: T5Config, *, has_bias: bool):
        super().__init__()
        self.SelfAttention = Attention(config, has_bias=has_bias)
        self.layer_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class FeedForwardLayer(nn.Module):
    """Norm, feed-forward, residual."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.DenseReluDense = GatedFeedForward(config)
        self.layer_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.DenseReluDense(self.layer_norm(x))


class Block(nn.Module):
    """Both layers. The first block makes the bias, which the others get."""

    def __init__(self, config: T5Config, *, has_bias: bool):
        super().__init__()
        self.layer = nn.ModuleList((AttentionLayer(config, has_bias=has_bias), FeedForwardLayer(config)))

    def forward(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        attention, feed_forward = self.layer
        if bias is None:
            bias = attention.SelfAttention.bias(len(x))  # type: ignore[union-attr, operator]
        assert bias is not None
        return feed_forward(attention(x, bias)), bias


class Stack(nn.Module):
    """Blocks and norm; the embedding is here because files name it so."""

    def __init__(self, config: T5Config, embedding: nn.Embedding):
        super().__init__()
        self.embed_tokens = embedding
        self.block = nn.ModuleList(Block(config, has_bias=index == 0) for index in range(config.num_layers))
        self.final_layer_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        bias = None
        for block in self.block:
            x, bias = block(x, bias)
        return self.final_layer_norm(x)


class T5Encoder(nn.Module):
    """transformers' `T5EncoderModel`. The embedding has two names there, is one module here, and may be on the host."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.config = config
        self.shared = _embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config, self.shared)

    @classmethod
    def from_transformers(cls, model: Any) -> "T5Encoder":
        """Of a `T5EncoderModel`, whose parameters are shared."""
        with torch.device("meta"):
            encoder = cls(T5Config.from_mapping(model.config.to_dict()))
        encoder.load_state_dict(model.state_dict(), strict=True, assign=True)
        return encoder.requires_grad_(False).eval()

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.final_layer_norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where it runs; its last norm is there even while the other weights are not."""
        return self.encoder.final_layer_norm.weight.device

    def embed(self, ids: Tensor) -> Tensor:
        """int64 `[tokens]` to `[tokens, d_model]` on the encoder's device."""
        return self.shared(ids.to(self.shared.weight.device)).to(self.device)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 `[tokens]` to `[tokens, d_model]`."""
        return self.encoder(self.embed(ids))
