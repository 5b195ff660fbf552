"""Where the parts of a video file lie, by its container, and the numbers in their headers.

As much of each format as mutations need: a walk that stops at what it does not understand. What a
mutation has made wrong on the way, checksums of pages and chunks, is put right by `repaired`, or
FFmpeg would refuse the part before it reads a number in it.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple


class Part(NamedTuple):
    """A box, chunk, page, packet or picture: bytes `start` to `end`, of which `body` is the first
    behind the header. is_media: whether the body is coded pictures, and holds no numbers."""

    start: int
    end: int
    body: int
    is_media: bool = False


_MP4_FOLDERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex"}
_EBML_FOLDERS = {
    *(0x18538067, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0),  # segment to video
    *(0x1F43B675, 0x1C53BB6B, 0xBB, 0xB7),  # clusters and cues
}


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """Boxes of an mp4, those in others after them."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        if size < 8:
            return
        yield Part(start, min(start + size, end), start + 8, kind == b"mdat")
        if kind in _MP4_FOLDERS:
            yield from boxes(data, start + 8, min(start + size, end))
        elif kind == b"stsd":  # the count, then a box whose own boxes begin 78 bytes later
            yield from boxes(data, start + 16, min(start + size, end))
            yield from boxes(data, start + 16 + 8 + 78, min(start + size, end))
        start += size


def elements(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """Elements of Matroska, those in others after them."""
    end = len(data) if end is None else end
    while start < end and data[start]:
        id_bytes = 9 - data[start].bit_length()
        place = start + id_bytes
        if place >= end or not data[place]:
            return
        size_bytes = 9 - data[place].bit_length()
        size = int.from_bytes(data[place : place + size_bytes]) & ((1 << 7 * size_bytes) - 1)
        kind, body = int.from_bytes(data[start:place]), place + size_bytes
        stop = min(body + size, end)
        yield Part(start, stop, body, kind in (0xA3, 0xA1))
        if kind in _EBML_FOLDERS:
            yield from elements(data, body, stop)
        start = stop


def riff_chunks(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """Chunks of an AVI, those in lists after them."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        kind, size = struct.unpack("<4sI", data[start : start + 8])
        stop = min(start + 8 + size + size % 2, end)
        yield Part(start, stop, start + 8, kind[2:] in (b"dc", b"db", b"wb"))
        if kind in (b"RIFF", b"LIST"):
            yield from riff_chunks(data, start + 12, stop)
        start = stop


def asf_objects(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """Objects of an ASF; the header's own after it."""
    end = len(data) if end is None else end
    while start + 24 <= end:
        size = int.from_bytes(data[start + 16 : start + 24], "little")
        stop = min(start + size, end)
        if size < 24:
            return
        is_header = start == 0
        yield Part(start, stop, start + (30 if is_header else 24), size > 5000)
        if is_header:
            yield from asf_objects(data, 30, stop)
        start = stop


def ogg_pages(data: bytes) -> Iterator[Part]:
    start = 0
    while data[start : start + 4] == b"OggS" and start + 27 <= len(data):
        body = start + 27 + data[start + 26]
        end = min(body + sum(data[start + 27 : body]), len(data))
        yield Part(start, end, body, start > 500)
        start = end


def flv_tags(data: bytes) -> Iterator[Part]:
    yield Part(0, 13, 0)
    start = 13
    while start + 15 <= len(data):
        end = min(start + 15 + int.from_bytes(data[start + 1 : start + 4]), len(data))
        yield Part(start, end, start + 11 + 5, data[start] != 18)
        start = end


def mxf_keys(data: bytes) -> Iterator[Part]:
    start = 0
    while start + 17 <= len(data):
        extra = data[start + 16] & 0x7F if data[start + 16] & 0x80 else 0
        body = start + 17 + extra
        size = int.from_bytes(data[start + 17 : body]) if extra else data[start + 16]
        end = min(body + size, len(data))
        yield Part(start, end, body, data[start + 8 : start + 12] == b"\x0d\x01\x03\x01")
        start = end


def ivf_frames(data: bytes) -> Iterator[Part]:
    yield Part(0, 32, 0)
    start = 32
    while start + 12 <= len(data):
        end = min(start + 12 + int.from_bytes(data[start : start + 4], "little"), len(data))
        yield Part(start, end, start + 12, True)
        start = end


def gif_blocks(data: bytes) -> Iterator[Part]:
    start = 13 + (3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    yield Part(0, start, 0)
    while start + 10 < len(data) and data[start] in (0x21, 0x2C):
        body = start + 2
        if data[start] == 0x2C:
            flags = data[start + 9]
            body = start + 11 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
        end = body
        while end < len(data) and data[end]:
            end += 1 + data[end]
        yield Part(start, min(end + 1, len(data)), body, data[start] == 0x2C)
        start = end + 1


def png_chunks(data: bytes) -> Iterator[Part]:
    start = 8
    while start + 12 <= len(data):
        end = min(start + 12 + int.from_bytes(data[start : start + 4]), len(data))
        yield Part(start, end, start + 8, data[start + 4 : start + 8] in (b"IDAT", b"fdAT"))
        start = end


def y4m_frames(data: bytes) -> Iterator[Part]:
    starts = [0, *(found.start() for found in re.finditer(b"FRAME", data))]
    for start, end in pairwise([*starts, len(data)]):
        yield Part(start, end, start + 6 if start else 0, start > 0)


def blocks(size: int) -> Callable[[bytes], Iterator[Part]]:
    """Parts of one size: packets of a transport stream, blocks of a DV."""

    def walk(data: bytes) -> Iterator[Part]:
        for start in range(0, len(data), size):
            end = min(start + size, len(data))
            yield Part(start, end, start + 12, start >= 4 * size)

    return walk


def start_codes(data: bytes) -> Iterator[Part]:
    """From one start code to the next: parts of MPEG streams, H.264 and H.265."""
    starts = [found.start() for found in re.finditer(b"\0\0\1", data)]
    for start, end in pairwise([*starts, len(data)]):
        yield Part(start, end, start + 8, end - start > 100)


WALKS: dict[str, Callable[[bytes], Iterator[Part]]] = {
    "mov": boxes,
    "matroska": elements,
    "avi": riff_chunks,
    "mpegts": blocks(188),
    "mpeg": start_codes,
    "mpegvideo": start_codes,
    "flv": flv_tags,
    "ogg": ogg_pages,
    "asf": asf_objects,
    "mxf": mxf_keys,
    "dv": blocks(80),
    "ivf": ivf_frames,
    "gif": gif_blocks,
    "apng": png_chunks,
    "yuv4mpegpipe": y4m_frames,
    "h264": start_codes,
    "hevc": start_codes,
}


def repaired(container: str, data: bytes) -> bytes:
    """The same file with the checksums that its parts should have."""
    out = bytearray(data)
    if container == "apng":
        for part in png_chunks(data):
            if part.end - part.start >= 12:
                checksum = zlib.crc32(data[part.start + 4 : part.end - 4])
                out[part.end - 4 : part.end] = checksum.to_bytes(4)
    elif container == "ogg":
        for part in ogg_pages(data):
            out[part.start + 22 : part.start + 26] = bytes(4)
            checksum = _ogg_checksum(out[part.start : part.end])
            out[part.start + 22 : part.start + 26] = checksum.to_bytes(4, "little")
    return bytes(out)


def _ogg_checksum(page: bytes | bytearray) -> int:
    """CRC-32 of polynomial 04c11db7 from 0, bits not reflected (RFC 3533, section 6)."""
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1) ^ (0x104C11DB7 if checksum >> 31 else 0)
    return checksum
