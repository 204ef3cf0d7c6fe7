"""The synthetic world's text embedder: a SentencePiece tokenizer and a small T5 encoder, trained on its captions.

    python -m kandinsky.training.world.text FOLDER

The encoder learns to fill in words that were left out (BERT, arXiv 1810.04805, with T5's encoder); the layer that names
the words is thrown away. Texts are padded to a fixed length and padding is attended, because that is how the pipeline
encodes. They are those of the training scenes in many wordings; scenes held out from training are not read here either.
Writes `tokenizer/` and `text_encoder/` in the published layout.

Legend: texts: [sentences, TEXT_TOKENS] token numbers
"""

import argparse
import io
import json
import random
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from kandinsky.checkpoint.replace_set import replacing_set
from kandinsky.training.world.grammar import caption, split
from kandinsky.training.world.wording import reword
from kandinsky.user_files.paths import path_argument

TEXT_TOKENS = 24
SIZES: dict[str, Any] = {"d_model": 128, "d_ff": 256, "d_kv": 32, "num_heads": 4, "num_layers": 3}
WORDINGS = 6
"""Sentences of each scene beside its caption."""
MASKED, SWAPPED = 0.3, 0.03
PAD = 0


def sentences(seed: int) -> list[str]:
    """Captions of the training scenes and other wordings of them."""
    choice, scenes = random.Random(seed), split()[0]
    return [caption(scene) for scene in scenes] + [reword(scene, choice) for scene in scenes for _ in range(WORDINGS)]


def write_tokenizer(folder: Path, texts: list[str]) -> None:
    """A SentencePiece model of the texts' words, with T5's special tokens."""
    from sentencepiece import SentencePieceTrainer

    # SentencePiece takes as a piece only what occurs in two different words: each word is there with an ending, too.
    words = sorted({word.strip(",.").lower() for text in texts for word in text.split()})
    model = io.BytesIO()
    SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]  # added at run time
        sentence_iterator=iter(texts + [f"{word}s" for word in words]),
        model_writer=model,
        vocab_size=256,
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars="abcdefghijklmnopqrstuvwxyz0123456789,.!?'-",
        normalization_rule_name="nmt_nfkc_cf",  # capitals do not matter
        pad_id=PAD,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    marks = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "extra_ids": 100}
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": TEXT_TOKENS, "legacy": True, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def tokenize(tokenizer: Any, texts: list[str]) -> Tensor:
    """Token numbers as the pipeline has them; all of each text must fit."""
    longest = max(texts, key=lambda text: len(tokenizer(text).input_ids))
    length = len(tokenizer(longest).input_ids)
    assert length <= TEXT_TOKENS, f"{longest!r} has {length} tokens, TEXT_TOKENS is {TEXT_TOKENS}"
    return tokenizer(texts, padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt").input_ids


def new_encoder(vocabulary: int) -> Any:
    """transformers' T5 encoder, freshly drawn from PyTorch's own generator."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        **SIZES,
        vocab_size=vocabulary,
        feed_forward_proj="gated-gelu",
        use_cache=False,
        dropout_rate=0.0,
    )
    return T5EncoderModel(config)


def hide(batch: Tensor, mask: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Some words behind the mask token, and a few swapped for words of other texts; with it, which those are."""
    drawn = torch.rand(batch.shape, generator=generator)
    chosen = (drawn < MASKED) & (batch != PAD)
    swapped = drawn < SWAPPED
    given = batch.masked_fill(chosen, mask)
    return torch.where(chosen & swapped, batch.roll(1, dims=0), given), chosen


def train_encoder(texts: Tensor, *, vocabulary: int, mask: int, steps: int, seed: int = 0) -> Any:
    """transformers' T5 encoder that fills in what `hide` takes away.

    Args:
        vocabulary: number of tokens.
        mask: the token that stands for a hidden word.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, namer = new_encoder(vocabulary), nn.Linear(SIZES["d_model"], vocabulary)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *namer.parameters()], lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    bar = trange(steps, desc="text encoder", mininterval=2)
    for _ in bar:
        batch = texts[torch.randint(len(texts), (128,), generator=generator)]
        given, chosen = hide(batch, mask, generator)
        loss = F.cross_entropy(namer(encoder(input_ids=given).last_hidden_state[chosen]), batch[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return encoder.requires_grad_(False).eval()


def main(arguments: list[str]) -> None:
    from transformers import T5Tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=path_argument)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    texts = sentences(given.seed)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "tokenizer"
        write_tokenizer(folder, texts)
        tokenizer = T5Tokenizer.from_pretrained(folder)
        mask = tokenizer.convert_tokens_to_ids("<extra_id_0>")
        encoder = train_encoder(
            tokenize(tokenizer, texts), vocabulary=len(tokenizer), mask=mask, steps=given.steps, seed=given.seed
        )
        with replacing_set(given.folder) as new:  # one encoder's tokens mean nothing to another
            shutil.copytree(folder, new / "tokenizer")
            encoder.bfloat16().save_pretrained(new / "text_encoder")


if __name__ == "__main__":
    main(sys.argv[1:])
