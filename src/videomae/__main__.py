"""The command `videomae`, also as `python -m videomae`."""

import os
import sys

from videomae.commands.overview import quick_answer


def main() -> int:
    """Run one command; its exit code. What needs no parser is answered before one is imported."""
    if text := quick_answer(sys.argv[1:]):
        try:
            sys.stdout.write(f"{text}\n")  # holds nothing but our own words
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    from videomae.commands import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
