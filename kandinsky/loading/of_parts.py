"""What is made of parts, and shows them."""

from kandinsky.config import ModelSet
from kandinsky.loading.parts import Parts, is_resident
from kandinsky.model.dit import DiT
from kandinsky.output.record import Origin
from kandinsky.parallel.ranks import Ranks
from kandinsky.text.cache import PromptCache
from kandinsky.text.encoder import TextEncoder
from kandinsky.vae.autoencoder import VideoAutoencoder


class OfParts:
    """Parts by their names.

    Args:
        parts: everything that runs.
    """

    def __init__(self, parts: Parts):
        self._parts = parts

    @property
    def parts(self) -> Parts:
        """Everything that runs."""
        return self._parts

    @property
    def dit(self) -> DiT:
        """The transformer."""
        return self._parts.dit

    @property
    def text_encoder(self) -> TextEncoder | PromptCache | None:
        """None on ranks that are not their team's first."""
        return self._parts.text_encoder

    @property
    def vae(self) -> VideoAutoencoder | None:
        """None there too, unless the team decodes together."""
        return self._parts.vae

    @property
    def model_set(self) -> ModelSet:
        """What the weights were trained for."""
        return self._parts.model_set

    @property
    def ranks(self) -> Ranks:
        """All processes; the main one gives the request."""
        return self._parts.ranks

    @property
    def team(self) -> Ranks:
        """Those that make a video together."""
        return self._parts.team

    @property
    def origin(self) -> Origin | None:
        """How it was loaded; None on ranks that do not write, and if it was put together by hand."""
        return self._parts.origin

    @property
    def progress(self) -> bool:
        """Whether bars are shown here."""
        return self._parts.progress and self.ranks.is_main

    @property
    def is_resident(self) -> bool:
        """Whether all weights that this process has stay on their devices."""
        return is_resident(self._parts)
