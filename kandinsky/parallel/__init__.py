"""Several processes: who they are, what they send each other, and how they share a video."""
