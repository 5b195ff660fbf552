"""When frames of a video file are shown, and where decoding can start, learnt from its packets."""

from collections.abc import Callable, Iterable

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# Containers that store when each frame is shown, so that counting needs no decoding.
_TIMED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")

_PROGRESSIVE = 1  # AVFieldOrder; 0 is unknown
# Packets of MPEG-4 so small may show no picture (vop_coded), as FFmpeg has it (MAX_NVOP_SIZE).
_MPEG4_EMPTY_BYTES = 19

Shown = list[tuple[int, bool]]  # in stored order: when a frame is shown, whether it is a key frame


def read_index(
    container: InputContainer, stream: VideoStream, count: Callable[[int], None]
) -> tuple[bool, Shown]:
    """Read all packets of an open file; return whether they are all there, and the frames in them.

    No frames where packets do not tell them apart: they have to be counted by decoding. `count` is
    called at each packet with their number so far, and may raise.
    """
    codec = stream.codec_context
    # An interlaced picture may be two packets, one for each field.
    if container.format.name not in _TIMED_CONTAINERS or codec.field_order > _PROGRESSIVE:
        return True, []
    name = codec.name
    packet_times: list[int | None] = []
    shown: Shown = []
    try:
        for packet in container.demux(stream):
            if packet.dts is None and not packet.size:
                continue  # PyAV's own last packet, which empties the decoder
            count(len(packet_times) + 1)
            if packet.is_corrupt:
                return False, []
            if name == "vp8" and not memoryview(packet)[0] & 0x10:
                continue  # show_frame, RFC 6386 section 9.1: a picture for reference only
            if name == "mpeg4" and packet.size <= _MPEG4_EMPTY_BYTES:
                return True, []
            packet_times.append(packet.pts if packet.size else None)
            if packet.pts is None or packet.is_discard:  # which is outside the edit list
                continue
            shown.append((packet.pts, packet.is_keyframe))
    except av.FFmpegError:
        return False, []
    unique = None not in packet_times and len(set(packet_times)) == len(packet_times)
    return True, shown if unique and _keys_divide(shown) else []


def _keys_divide(shown: Iterable[tuple[int, bool]]) -> bool:
    """Whether what is stored before a key frame is shown before it, and the rest after it.

    Pictures that directly follow a key frame may be shown before it. `shown`: in stored order,
    when each is shown, and whether it is a key frame. Without this, decoding cannot start there.

    >>> _keys_divide([(0, True), (2, False), (1, False), (5, True), (3, False), (4, False)])
    True
    >>> _keys_divide([(2, True), (3, False), (0, True), (1, False)])
    False
    """
    latest = key_time = -(2**63)
    for time, is_key in shown:
        if is_key:
            if time < latest:
                return False
            key_time = time
        elif time < key_time < latest:
            return False
        latest = max(latest, time)
    return True
