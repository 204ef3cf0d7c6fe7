"""Make a video from a prompt; without arguments, the published demonstration. `--help` lists the arguments."""

import sys

from kandinsky.cli.main import generate_main

if __name__ == "__main__":
    sys.exit(generate_main())
