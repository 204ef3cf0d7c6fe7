"""The ffmpeg program, which reads and writes videos, and makes frames between frames."""
