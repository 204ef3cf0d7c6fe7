"""Frames between the frames of a video, for a smooth one of the same length."""

from kandinsky.interpolate.array import frames as frames

__all__ = ["frames"]
