"""The errors that a user can fix; messages say what was got, what was expected, what to do."""

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator


class VideoMAEError(Exception):
    """Base of every error that is the caller's to fix; the command line prints it in one line."""


class ConfigError(VideoMAEError, ValueError):
    """A setting, an argument or a tensor shape does not fit."""


class VideoError(VideoMAEError, ValueError):
    """A video file cannot be read, is damaged, is of a refused kind, or exceeds a limit."""


class WeightsError(VideoMAEError, ValueError):
    """A checkpoint cannot be found or read, or does not fit the model it is loaded into."""


class SourceError(WeightsError, OSError):
    """Files of a model cannot be found, downloaded or read."""


class ShapeError(WeightsError, RuntimeError):
    """Tensors of a checkpoint have another shape than those of the model."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the most similar known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@contextlib.contextmanager
def needing(what: str, *, extra: str = "train") -> Iterator[None]:
    """Make an import that fails inside a ConfigError that names the extra to install."""
    try:
        yield
    except ImportError:
        raise ConfigError(f'{what} needs more packages: pip install "videomae[{extra}]"') from None


def complain(text: str, *, code: int = 1) -> int:
    """Print an error or a warning to stderr, in one line; returns the exit code to end with."""
    print("videomae:", " ".join(text.split()), file=sys.stderr)
    return code
