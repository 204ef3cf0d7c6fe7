"""Make a video from a prompt; without arguments, the published demonstration. `--help` lists the arguments."""

from kandinsky.cli.ending import end_with
from kandinsky.cli.main import generate_main

if __name__ == "__main__":
    end_with(generate_main)
