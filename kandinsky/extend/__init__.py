"""Going on from a video, for minutes: its own frames, then pieces that know the end of what came before them."""
