"""An extension to a file: the source's own frames, then piece after piece, each sampled, decoded and written."""

import shlex
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor as _Helper
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from kandinsky.errors import DecodeError, StoppedError
from kandinsky.extend.pieces import Pieces
from kandinsky.extend.plan import Extension, Piece
from kandinsky.known.given import Given
from kandinsky.output.finisher import NOT_FINITE
from kandinsky.output.options import Writer, open_writer
from kandinsky.output.record import GivenRecord, Record
from kandinsky.output.result import GenerationResult
from kandinsky.progress import Clock, Watch
from kandinsky.runner import Runner

Work = tuple[tuple[Piece, ...], list[bool]]
"""All pieces, and of each whether it is finished."""


def run_extension(
    runner: Runner, extension: Extension | None, *, watch: Watch | None = None
) -> GenerationResult | None:
    """Make an extension; what is finished of it already is not made again.

    Args:
        extension: on the team's first rank; None on the others, which help.
        watch: asked after each step.

    Returns:
        The result; None on ranks that do not write.

    Raises:
        ValueError: another extension with this target is unfinished, or this one with other low-rank weights.
        DecodeError: it failed; finished pieces stay, and the message says how to go on.
        StoppedError: a callback stopped it; finished pieces stay.
    """
    if not runner.team.is_main:
        _help(runner, watch)
        return None
    assert extension is not None
    pieces = Pieces(extension)
    record = record_of(runner, extension)
    pieces.check_loras(record)
    runner.team.share((extension.pieces, pieces.finished()))
    with _kept(pieces):
        clock = Clock(frozenset(part.device for part in (runner.dit, runner.vae) if part is not None))
        source = runner.parts.vae_source
        pieces.begin(record, None if source is None else str(Path(source.path).parent))
        with clock.stage("text"):
            text_embed = runner.encode(extension.prompt)
        comment = record.to_json() if extension.output.metadata else None
        size = {"width": extension.source.width, "height": extension.source.height}
        with open_writer(extension.path, extension.output, comment=comment, **size) as writer, _Helper(1) as helper:
            copied, tail = _begin_copy(extension, writer, helper)
            for piece in extension.pieces:
                latents, saved = pieces.load(piece.seed), None
                if latents is None:
                    latents = _sample(runner, piece, text_embed, Given(head=tail), watch, clock)
                    saved = helper.submit(pieces.save, piece.seed, latents)
                else:
                    place = {"device": runner.dit.device, "dtype": latents.dtype}
                    latents = runner.team.share_tensor(latents, tuple(latents.shape), **place)
                copied.result()
                tail = _write(runner, latents, writer, extension.known_frames, clock)
                if saved is not None:
                    saved.result()
            with clock.host_stage("write"):
                writer.finish()
        pieces.discard()
    return GenerationResult(
        seed=record.seed,
        timings=clock.total(),
        peak_memory=clock.peak_memory,
        path=extension.path,
        num_frames=writer.num_frames,
        fps=extension.output.fps or extension.source.fps,
    )


def record_of(runner: Runner, extension: Extension) -> Record:
    """How the file is made."""
    output, source = extension.output, extension.source
    given = GivenRecord(
        inputs={"video": {"name": source.mark.name, "sha256": source.mark.sha256}},
        fit=extension.fit,
        overlap=extension.overlap,
        seeds=[piece.seed for piece in extension.pieces],
    )
    return Record(
        prompt=extension.prompt,
        seed=extension.pieces[0].seed,
        width=source.width,
        height=source.height,
        time_length=extension.seconds,
        fps=output.fps,
        crf=output.crf,
        codec=output.codec,
        origin=runner.origin,
        given=given,
    )


def _tail(chunks: Iterable[Tensor], count: int) -> Tensor:
    """The last frames of a source or a piece, which the next piece knows."""
    tail: list[Tensor] = []
    for chunk in chunks:
        tail = [*tail, chunk]
        while sum(map(len, tail[1:])) >= count:
            tail.pop(0)
    return torch.cat(tail)[-count:].clone()  # else all that they were part of would live as long as they do


def _begin_copy(extension: Extension, writer: Writer, helper: _Helper) -> "tuple[Future[Tensor], Tensor]":
    """Write the source's own frames, of a source that is kept while others work; gives the last ones too."""

    def written() -> Iterator[Tensor]:
        for chunk in extension.source.chunks():
            writer.write(chunk.numpy())
            yield chunk

    kept = extension.source.kept
    copied = helper.submit(_tail, written(), extension.known_frames)
    return copied, copied.result() if kept is None else _tail(kept, extension.known_frames)


def _sample(
    runner: Runner, piece: Piece, text_embed: Tensor, given: Given, watch: Watch | None, clock: Clock
) -> Tensor:
    with clock.stage("given"):
        known = runner.known(given, piece.shape)
    with clock.stage("sample"):
        latents = runner.sample(text_embed, piece.shape, seed=piece.seed, watch=watch, known=known)
    if not latents.isfinite().all():
        raise DecodeError(NOT_FINITE)
    return latents


def _write(runner: Runner, latents: Tensor, writer: Writer, known: int, clock: Clock) -> Tensor:
    """Decode a piece and write what is new of it; returns its last frames, which the next one knows."""
    vae = runner.vae
    assert vae is not None

    def written() -> Iterator[Tensor]:
        done = 0
        for chunk in vae.frames(latents):
            new = chunk[max(0, known - done) :]
            done += len(chunk)
            if len(new):
                writer.write(new.numpy())
            yield chunk.clone()

    with clock.stage("decode"):
        return _tail(written(), known)


def _help(runner: Runner, watch: Watch | None) -> None:
    """Sample and decode this rank's part of every piece."""
    clock = Clock(frozenset())
    pieces, finished = runner.team.share(cast("Work", ((), [])))
    text_embed = runner.encode("")
    for piece, done in zip(pieces, finished, strict=True):
        if done:
            size = (*piece.shape.latent_grid, runner.dit.config.in_visual_dim)
            latents = runner.team.share_tensor(None, size, device=runner.dit.device, dtype=torch.float64)
        else:
            latents = _sample(runner, piece, text_embed, Given.elsewhere(), watch, clock)
        if runner.vae is not None:
            for _ in runner.vae.decode(latents):
                pass


@contextmanager
def _kept(pieces: Pieces) -> Iterator[None]:
    """Whatever ends the body, say where the finished pieces are and how to go on."""
    said = f"finished pieces are in {pieces.folder}; to go on: kandinsky resume {shlex.quote(str(pieces.folder))}"
    try:
        yield
    except StoppedError as error:
        raise StoppedError(f"{error}; {said}") from error
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DecodeError(f"not finished ({first}); {said}") from error
    except BaseException as error:
        error.add_note(f"not finished: {said}")
        raise
