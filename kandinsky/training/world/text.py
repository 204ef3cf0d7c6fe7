"""The synthetic world's text embedder: a SentencePiece tokenizer and a small T5 encoder, trained on the grammar's
captions.

    python -m kandinsky.training.world.text FOLDER

The encoder learns to fill in words that were left out (BERT, arXiv 1810.04805, with T5's encoder); the layer that
names the words is thrown away. Captions are padded to a fixed length and padding is attended, because that is how the
pipeline encodes. Writes `tokenizer/` and `text_encoder/` in the published layout.
"""

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from kandinsky.training.world.grammar import all_scenes, caption

TEXT_TOKENS = 20
SIZES: dict[str, Any] = {"d_model": 128, "d_ff": 256, "d_kv": 32, "num_heads": 4, "num_layers": 3}
MASKED = 0.3
PAD, UNKNOWN = 0, 2


def write_tokenizer(folder: Path) -> None:
    """A SentencePiece model of the captions' words, with T5's special tokens."""
    from sentencepiece import SentencePieceTrainer

    captions = [caption(scene) for scene in all_scenes()]
    # SentencePiece considers only what occurs in two different words: each word is there with an ending, too.
    endings = [f"{word}s" for word in sorted({word for text in captions for word in text.split()})]
    model = io.BytesIO()
    SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]  # added at run time
        sentence_iterator=iter(captions + endings),
        model_writer=model,
        vocab_size=128,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",  # capitals do not matter
        pad_id=PAD,
        eos_id=1,
        unk_id=UNKNOWN,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    marks = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "extra_ids": 0}
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": TEXT_TOKENS, "legacy": True, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def captions_as_ids(folder: Path) -> Tensor:
    """All captions, `[captions, TEXT_TOKENS]`, as the pipeline tokenizes them."""
    from transformers import T5Tokenizer

    tokenizer = T5Tokenizer.from_pretrained(folder)
    texts = [caption(scene) for scene in all_scenes()]
    longest = max(len(ids) for ids in tokenizer(texts)["input_ids"])
    assert longest <= TEXT_TOKENS, f"a caption has {longest} tokens"
    return tokenizer(texts, padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt")[
        "input_ids"
    ]


def train_encoder(ids: Tensor, *, steps: int, seed: int = 0, progress: bool = True) -> Any:
    """transformers' T5 encoder that fills in masked words of `ids` `[captions, tokens]`."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    words = int(ids.max()) + 1
    config = T5Config(**SIZES, vocab_size=words, feed_forward_proj="gated-gelu", use_cache=False, dropout_rate=0.0)
    encoder, namer = T5EncoderModel(config), nn.Linear(SIZES["d_model"], words)
    parameters = [*encoder.parameters(), *namer.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    bar = trange(steps, desc="text encoder", disable=not progress)
    for _ in bar:
        batch = ids[torch.randint(len(ids), (128,))]
        hidden = (torch.rand(batch.shape) < MASKED) & (batch != PAD)
        named = namer(encoder(input_ids=batch.masked_fill(hidden, UNKNOWN)).last_hidden_state[hidden])
        loss = F.cross_entropy(named, batch[hidden])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return encoder.requires_grad_(False).eval()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args(arguments)
    write_tokenizer(given.folder / "tokenizer")
    encoder = train_encoder(captions_as_ids(given.folder / "tokenizer"), steps=given.steps)
    encoder.bfloat16().save_pretrained(given.folder / "text_encoder")


if __name__ == "__main__":
    main(sys.argv[1:])
