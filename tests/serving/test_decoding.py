import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from odd_makers import Counting, Dying, Greedy, Hanging
from videomae.errors import NoVideoError, VideoError
from videomae.serving.decoding import Decoders
from videomae.video.limits import VideoLimits


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    decoders = Decoders(1)
    yield decoders
    decoders.close()


def decode(decoders: Decoders, path: Path, maker: Any, seconds: float = 60) -> Any:
    limits = VideoLimits(max_decode_seconds=seconds)
    return asyncio.run(decoders.decode(path, maker, limits, name="a.mp4"))


def test_a_file_that_kills_its_process_is_refused_and_the_next_is_read(
    decoders: Decoders, videos_dir: Path
) -> None:
    video = videos_dir / "throw" / "0.mp4"
    with pytest.raises(VideoError, match=r"^a\.mp4: decoding it ended its process, twice$"):
        decode(decoders, video, Dying())
    assert decode(decoders, video, Counting())[0].tolist() == [8, 8]


def test_a_process_that_is_killed_once_costs_nothing_but_time(
    decoders: Decoders, videos_dir: Path, tmp_path: Path
) -> None:
    views, info = decode(decoders, videos_dir / "throw" / "0.mp4", Dying(tmp_path / "killed"))
    assert views.tolist() == [[1, 1]]
    assert info.num_frames == 8


@pytest.mark.skipif(sys.platform != "linux", reason="no limit on the memory of a process")
def test_a_file_that_needs_too_much_memory_is_refused(decoders: Decoders, videos_dir: Path) -> None:
    video = videos_dir / "throw" / "0.mp4"
    with pytest.raises(VideoError, match=r"^a\.mp4: decoding it needs too much memory$"):
        decode(decoders, video, Greedy())
    assert decode(decoders, video, Counting())[0].tolist() == [8, 8]


def test_a_file_that_hangs_is_stopped(decoders: Decoders, videos_dir: Path) -> None:
    video, start = videos_dir / "throw" / "0.mp4", time.monotonic()
    with pytest.raises(VideoError, match=r"^a\.mp4: decoding took more than 1 seconds$"):
        decode(decoders, video, Hanging(), seconds=1)
    assert time.monotonic() - start < 20
    assert decode(decoders, video, Counting())[0].tolist() == [8, 8]


def test_what_nobody_waits_for_is_stopped(decoders: Decoders, videos_dir: Path) -> None:
    video = videos_dir / "throw" / "0.mp4"

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await decoders.decode(video, Hanging(), VideoLimits(), name="a")  # type: ignore[arg-type]

    asyncio.run(leave())
    start = time.monotonic()
    assert decode(decoders, video, Counting())[0].tolist() == [8, 8]
    assert (
        time.monotonic() - start < 60
    )  # of the one process, which would have slept for ten minutes


def test_errors_keep_their_kind_and_name_the_file_as_the_client_does(
    decoders: Decoders, tmp_path: Path
) -> None:
    path = tmp_path / "secret-place"
    path.write_bytes(b"no video")
    with pytest.raises(NoVideoError, match=r"^a\.mp4: cannot be opened") as error:
        decode(decoders, path, Counting())
    assert "secret-place" not in str(error.value)


def test_limits_are_named_without_advice_for_the_host(decoders: Decoders, videos_dir: Path) -> None:
    limits = VideoLimits(max_frames=3)
    with pytest.raises(VideoError, match=r"^a\.mp4: it has .* above the limit of 3$"):
        asyncio.run(
            decoders.decode(videos_dir / "throw" / "0.mp4", Counting(), limits, name="a.mp4")  # type: ignore[arg-type]
        )


def test_processes_that_are_killed_while_they_are_idle_are_replaced(videos_dir: Path) -> None:
    video, decoders = videos_dir / "throw" / "0.mp4", Decoders(1)
    for _ in range(3):
        assert decode(decoders, video, Counting())[0].tolist() == [8, 8]
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
    decoders.close()


def test_the_process_that_the_others_are_forked_from_may_be_killed(videos_dir: Path) -> None:
    video, decoders = videos_dir / "throw" / "0.mp4", Decoders(1)
    assert decode(decoders, video, Counting())[0].tolist() == [8, 8]
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
    assert decode(decoders, video, Counting())[0].tolist() == [8, 8]
    decoders.close()
