r"""The errors that a user can fix, and paths and names in all that is written, as text or files.

Messages say what was got, what was expected, what to do. The name of a file may hold any bytes;
Python has those that are no UTF-8 as single surrogates, which no UTF-8 file can hold. They are
written as \xNN. A manifest alone keeps the bytes themselves, as its paths are to be opened again.
"""

import contextlib
import difflib
import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

_SURROGATES = "\ud800-\udfff"
_NO_UTF8 = re.compile(f"[{_SURROGATES}]")
# Control characters, line ends of Unicode, and those that turn the direction of writing: a name
# must not move the cursor of a terminal, or look like another.
_SIGNS = "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_NO_LINE = re.compile(f"[\0-\x1f{_SIGNS}{_SURROGATES}]")
_NO_JSON = re.compile(f"[{_SIGNS}{_SURROGATES}]")  # json.dumps itself escapes what is below a blank
# File systems allow 255 bytes; a file being written has a longer name for a while.
_MAX_NAME_BYTES = 200
# The surrogates are those that stand for no byte.
_NO_NAME = re.compile(
    r'[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff/\\:*?"<>|]|[. ]+$'
)
_DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\.|$)", re.IGNORECASE)  # of Windows
# An error is a line that people read: of a value of thousands of signs, both ends do.
_MAX_LINE = 1500


class VideoMAEError(Exception):
    """Base of every error that is the caller's to fix; the command line prints it in one line."""


class ConfigError(VideoMAEError, ValueError):
    """A setting, an argument or a tensor shape does not fit."""


class VideoError(VideoMAEError, ValueError):
    """A video file cannot be read, is damaged, is of a refused kind, or exceeds a limit."""


class NoVideoError(VideoError):
    """A file is of none of the kinds that are read, or too damaged at its start to tell."""


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


@contextlib.contextmanager
def going_on(what: str) -> Iterator[None]:
    """Make a warning of whatever error keeps a report from being written: it must not end a run."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"{what} could not be written ({reason}); all else goes on", stacklevel=3)


@contextlib.contextmanager
def keeping(tell: Callable[[], str]) -> Iterator[None]:
    """Give the KeyboardInterrupt of a block the words of `tell`: what is kept of the work."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if interrupt.args:
            raise
        raise KeyboardInterrupt(tell()) from None


def complain(text: str, *, code: int = 1) -> int:
    """Print an error or a warning to stderr, in one line; returns the exit code to end with."""
    say(f"videomae: {in_brief(' '.join(text.split()))}", to=sys.stderr)
    return code


def say(text: object, *, to: TextIO | None = None) -> None:
    """Print lines of text, on stdout unless told otherwise: all that no table or bar shows.

    Signs that would move the cursor, or turn the direction of writing, are escaped.
    """
    print("\n".join(map(one_line, str(text).split("\n"))), file=to, flush=True)


def in_brief(text: str, most: int = _MAX_LINE) -> str:
    """A long text without its middle.

    >>> in_brief("0123456789", 6)
    '0123 ... 89'
    """
    cut = most // 3
    return text if len(text) <= most else f"{text[: most - cut]} ... {text[-cut:]}"


def reason_of(error: BaseException) -> str:
    """The line of an error that says what is wrong, or its kind where it says nothing.

    Of torch's about pickles, not the lines that advise to run whatever is in them.
    """
    text = str(error)
    refused = re.findall("WeightsUnpickler error: (.+)", text)
    lines = [line for line in text.splitlines() if line.strip() and "weights_only" not in line]
    return next(iter([*refused, *lines]), type(error).__name__)


def as_text(value: object) -> str:
    r"""A path or text as any file can hold it: bytes of a name that are no UTF-8 as \xNN.

    >>> as_text("caf\udce9")
    'caf\\xe9'
    """
    return _NO_UTF8.sub(_escaped, str(value))


def one_line(value: object) -> str:
    r"""A path or name as a terminal can show it, in one line: control characters escaped, too.

    >>> one_line("a\nb\x1b[2J\udce9")
    'a\\nb\\x1b[2J\\xe9'
    """
    return _NO_LINE.sub(_escaped, str(value))


def file_name(text: str) -> str:
    r"""The name of a file or folder that stands for a text from data, such as a split or a title.

    All names that data decides, and that are written, come from here. An ordinary text stays as it
    is. In others, what leads elsewhere, moves a cursor or is refused by some system (/ \ : * ? " <
    > |, control characters, blanks and points at the end, CON and other devices) is replaced, what
    is beyond 200 bytes cut off, and a hash of the text put behind, so that no two have one name.

    >>> file_name("train"), file_name("../X"), file_name("con.mp4")
    ('train', '.._X-720ef6fdb77f', '_con.mp4-591aa6af5c18')
    """
    name = _NO_NAME.sub("_", text) or "_"
    if _DEVICES.match(name):
        name = f"_{name}"
    raw = os.fsencode(name)
    if len(raw) > _MAX_NAME_BYTES:
        name = os.fsdecode(raw[:150]).encode(errors="ignore").decode()
    return name if name == text else f"{name}-{short_digest(text)}"


def short_digest(text: str) -> str:
    """A short name for a long text, whatever it holds: 12 hex digits."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]


def counted(count: float, word: str) -> str:
    """A whole number with what it counts: 1 video, 2,000 videos; words take an s, class an es.

    >>> counted(1, "step"), counted(0, "class")
    ('1 step', '0 classes')
    """
    plural = "" if count == 1 else "es" if word.endswith("s") else "s"
    return f"{count:,.0f} {word}{plural}"


def to_json(value: Any, **options: Any) -> str:
    r"""JSON that any program can read; for the options see `json.dumps`.

    A number that is not finite becomes null, as JSON has no word for it.

    >>> to_json({"path": "caf\udce9"})
    '{"path": "caf\\\\xe9"}'
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        plain = json.dumps(value, **options)
        finite = json.loads(plain, parse_constant=lambda _: None)
        text = json.dumps(finite, ensure_ascii=False, **options)
    return _NO_JSON.sub(_escaped_json, text)


def _escaped_json(found: re.Match[str]) -> str:
    is_byte = _NO_UTF8.match(found[0])
    return "\\" + _escaped(found) if is_byte else f"\\u{ord(found[0]):04x}"


def parse_json(text: str | bytes) -> Any:
    """The value of JSON; ValueError where it is none, or too deep. Endless numbers stay texts."""

    def whole(digits: str) -> int | str:
        try:
            return int(digits)
        except ValueError:
            return digits

    with contextlib.suppress(RecursionError):
        level = [value := json.loads(text, parse_int=whole)]
        for _ in range(101):  # deeper than that, a copy of it could not go
            if not level:
                return value
            dicts = [each.values() for each in level if isinstance(each, dict)]
            lists = [each for each in level if isinstance(each, list)]
            level = [inner for each in (*dicts, *lists) for inner in each]
    raise ValueError("its values are nested too deeply")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte from 0x80 on
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode()
