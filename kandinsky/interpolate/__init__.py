"""Frames between the frames of a video."""
