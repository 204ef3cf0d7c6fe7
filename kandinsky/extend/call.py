"""The call that goes on from a video: its arguments to a checked extension, which is then run."""

import os

from kandinsky.extend.pieces import Pieces
from kandinsky.extend.plan import Extension, check_extension_target, extension_of
from kandinsky.extend.run import run_extension
from kandinsky.output.options import OutputOptions
from kandinsky.output.result import GenerationResult
from kandinsky.progress import OnStep
from kandinsky.runner import Runner


class Extends(Runner):
    """What runs requests, and extensions too."""

    def extend(
        self,
        video: object,
        text: str,
        save_path: str | os.PathLike[str] | None = None,
        *,
        seconds: int,
        overlap: int = 1,
        width: int | None = None,
        height: int | None = None,
        seed: int | None = None,
        fit: str | None = None,
        fps: int | None = None,
        crf: int | None = None,
        codec: str | None = None,
        metadata: bool = True,
        on_step: OnStep | None = None,
    ) -> GenerationResult | None:
        """Go on from a video: one file with the video's own frames, and then `seconds` of new ones.

        They are made in pieces of at most 12 s, each of which knows the last `overlap` seconds before it. Memory does
        not grow with the length. Finished pieces are kept beside the file until it is complete, in `NAME.pieces/`: if
        the process is killed, the same call, or `kandinsky resume NAME.pieces`, goes on after them.

        Args:
            video: as in a call; at least `overlap` seconds long.
            text: the prompt of every piece.
            save_path: a video file; by default the video's with `-extended` in its name.
            seconds: whole seconds, up to an hour.
            overlap: whole seconds.
            width, height, fit: as in a call.
            seed: of the first piece; the next ones count up.
            fps, crf, codec, metadata, on_step: as in a call.

        Raises:
            ValueError: an argument is not what it may be; no model has run, and nothing is written.
            DecodeError: it failed; the message says how to go on.
            StoppedError: a callback stopped it; finished pieces stay.
        """
        watch = self._watch(on_step, None)
        mine: list[Extension] = []

        def asked() -> bool:
            options = OutputOptions(type="file", fps=fps, crf=crf, codec=codec, metadata=metadata)
            settings = {"seconds": seconds, "overlap": overlap, "width": width, "height": height, "seed": seed}
            extension = extension_of(
                video, text, save_path, **settings, fit=fit, model_set=self.model_set, options=options
            )
            check_extension_target(extension)
            Pieces(extension)
            mine.append(extension)
            return True

        self.ranks.share_made(asked)
        with self._alone():
            self._interrupt = False  # as a run does
            if self.team.is_main and not self.ranks.is_main:
                return None  # the first rank makes it alone
            return run_extension(self, mine[0] if mine else None, watch=watch)
