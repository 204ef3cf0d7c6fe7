"""The text encoder and its memory of prompts, from settings."""

from concurrent.futures import Future

from kandinsky.checkpoint.fingerprint import text_mark
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.loading.components import load_t5, load_tokenizer
from kandinsky.loading.settings import Settings
from kandinsky.loading.threads import current_gpu
from kandinsky.memory.modes import home_of_t5
from kandinsky.progress import Stage, unwatched
from kandinsky.text.cache import PromptCache
from kandinsky.text.encoder import TextEncoder
from kandinsky.text.int8 import quantise_linears_


def text_encoder_of(settings: Settings, *, stage: Stage = unwatched) -> TextEncoder:
    """The text encoder, ready to run.

    Args:
        stage: entered around each step, with the step's name.
    """
    device = settings.devices["text_embedder"]
    with stage("T5"):
        model = load_t5(
            settings.paths.text_encoder,
            device=settings.place("text_embedder"),
            dtype=settings.dtypes["text_embedder"],
            progress=settings.progress,
        )
    with stage("tokenizer"):
        tokenizer = load_tokenizer(settings.paths.tokenizer)
    if settings.text_encoder_int8:
        quantise_linears_(model, device)
    with stage("T5 to its home"):
        checkpoint = open_checkpoint(settings.paths.text_encoder)
        home = home_of_t5(model, device, mode=settings.modes["text_embedder"], checkpoint=checkpoint)
    return TextEncoder(model, tokenizer, text_tokens=settings.model_set.text_tokens, home=home)


def prompts_of(settings: Settings, marks: Future[dict[str, str]]) -> PromptCache:
    """The text encoder with its memory of prompts; with a folder for these it is loaded when it is first needed.

    Args:
        marks: fingerprints of the weights, which are being taken.
    """
    device, dtype, paths = settings.devices["text_embedder"], settings.dtypes["text_embedder"], settings.paths
    tokens, int8 = settings.model_set.text_tokens, settings.text_encoder_int8
    with current_gpu(device):
        loaded = text_encoder_of(settings) if settings.prompt_cache is None else None
        weights = marks.result()["text_encoder"]
        mark = text_mark(weights, paths.text_encoder, paths.tokenizer, tokens, dtype, device.type, int8)
        prompts = PromptCache(
            lambda: loaded or text_encoder_of(settings),
            device=device,
            fingerprint=mark,
            is_resident=settings.modes["text_embedder"].stays,
            folder=settings.prompt_cache,
        )
        if loaded is not None:
            _opened = prompts.encoder
        if settings.prompt is not None:
            prompts(settings.prompt)
    return prompts
