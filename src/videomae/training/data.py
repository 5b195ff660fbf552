"""From a list of videos to batches of clips, in an order that follows from the seed alone.

Which videos a step sees, which clips are drawn from them and how those are cropped are functions of
(seed, epoch, index), so that neither the number of workers nor of processes nor a resumed run
changes what a step learns from.
"""

import random
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Videos
from videomae.data.opening import open_video, part_of
from videomae.errors import ConfigError
from videomae.processing.plain import to_channels
from videomae.processing.sampling import clip_indices, random_start, random_uniform_indices
from videomae.processing.views import read_ahead, shown_frames, try_twice
from videomae.settings import TrainSettings
from videomae.training.augment import Augmentation
from videomae.training.frame_cache import FrameCache, name_of
from videomae.video.decoder import Frames
from videomae.video.reader import warn_of_gaps

# A video is kept decoded only up to this size, so that one long file cannot fill the cache.
_CACHED_VIDEO_BYTES = 16 << 20
_PARTS_AHEAD = 2
# Videos in shards are shuffled among so many shards at a time: near each other on disk, and yet
# of many classes and sources.
_SHARDS_AT_ONCE = 8


@dataclass(frozen=True)
class Part:
    """The share of one step that one process computes at once: which clips, and of which videos.

    places: of these videos in the step's whole batch; index: their numbers in the list.
    """

    step: int
    epoch: int
    places: tuple[int, ...]
    index: tuple[int, ...]


@dataclass(frozen=True)
class Sampler:
    """The videos that each step of a run looks at, worked out from numbers alone.

    A step takes `batch_size` videos, fewer if there are not so many, of which process `rank` of
    `world` takes an even share, in `accumulate` parts. The last incomplete batch of an epoch is
    left out, as in the published recipes.
    """

    num_videos: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1
    accumulate: int = 1
    shards: tuple[int, ...] = ()  # the number of each video's shard; empty for plain files

    def __post_init__(self) -> None:
        pieces = self.world * self.accumulate
        if self.batch_size % pieces:
            raise ConfigError(
                f"batch_size={self.batch_size} cannot be split evenly over {self.world} processes "
                f"in {self.accumulate} parts each; use a multiple of {pieces}"
            )
        if self.num_videos < pieces:
            raise ConfigError(
                f"{self.num_videos} videos are too few for {self.world} processes of "
                f"{self.accumulate} parts; use fewer of them"
            )

    @property
    def videos_per_part(self) -> int:
        """The batch size, or less where there are not so many videos, over all parts."""
        return min(self.batch_size, self.num_videos) // (self.world * self.accumulate)

    @property
    def videos_per_step(self) -> int:
        return self.videos_per_part * self.world * self.accumulate

    @property
    def steps_per_epoch(self) -> int:
        return self.num_videos // self.videos_per_step

    def parts(self, step: int) -> list[Part]:
        """The parts of a step that this process computes."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.num_videos, self.shards, self.seed, epoch)
        first = position * self.videos_per_step
        size = self.videos_per_part
        starts = range(self.rank * self.accumulate, (self.rank + 1) * self.accumulate)
        return [
            Part(
                step,
                epoch,
                tuple(range(start * size, (start + 1) * size)),
                order[first + start * size : first + (start + 1) * size],
            )
            for start in starts
        ]


@lru_cache(maxsize=2)
def _epoch_order(
    num_videos: int, shards: tuple[int, ...], seed: int, epoch: int
) -> tuple[int, ...]:
    """The order of the videos in one epoch; those in shards stay near their neighbours."""
    draw = random.Random(f"{seed} {epoch} order")
    order = list(range(num_videos))
    if not shards:
        draw.shuffle(order)
        return tuple(order)
    members: dict[int, list[int]] = {}
    for index, shard in enumerate(shards):
        members.setdefault(shard, []).append(index)
    sequence = sorted(members)
    draw.shuffle(sequence)
    order = []
    for start in range(0, len(sequence), _SHARDS_AT_ONCE):
        group = [i for shard in sequence[start : start + _SHARDS_AT_ONCE] for i in members[shard]]
        draw.shuffle(group)
        order += group
    return tuple(order)


@dataclass(frozen=True)
class Batch:
    """The clips of one part.

    pixels: uint8 (B, T, C, H, W), for each repeat the videos in turn. index: the numbers of the
    videos (B). rows: where each clip stands among all clips of the step (B): repeat * videos per
    step + place, so that what is drawn for a step can be dealt out. partner: the clip of this batch
    that each is mixed with, where clips are mixed; itself where that one is missing (B).

    num_clips: B, or 0 where no video could be read and one black clip stands in, which counts for
    nothing: processes compute a step together. clips_per_step: clips of all parts and processes, if
    all can be read. bad: videos that could not be read, with the reason; they make the batch
    smaller and are never replaced by others.
    """

    step: int
    pixels: Tensor
    index: tuple[int, ...]
    rows: tuple[int, ...]
    partner: tuple[int, ...]
    num_clips: int
    clips_per_step: int
    bad: dict[int, str] = field(default_factory=dict)


class ClipSource:
    """Draws clips from videos, keeping them decoded: small ones in memory, or any on disk."""

    def __init__(self, videos: Videos, config: VideoMAEConfig, settings: TrainSettings) -> None:
        self.videos, self.config = videos, config
        self.augmentation = Augmentation.of(settings)
        self.seed, self.num_repeats = settings.seed, settings.num_repeats
        self._on_damage = settings.on_damage
        # videos that were used in part, by their numbers, and in how many places they are damaged
        self.damaged: dict[int, int] = {}
        self._cache: dict[int, Frames] = {}
        self._cache_left = int(settings.cache_gb * 2**30)
        self._lock = threading.Lock()
        self._disk: FrameCache | None = None
        if settings.cache_dir is not None:
            self._disk = FrameCache(settings.cache_dir, settings.cache_gb * 2**30)

    def batch(self, part: Part, clips: Sequence[Tensor | str], *, videos_per_step: int) -> Batch:
        """Put together the clips of a part's videos, with a reason for each that has none."""
        bad = {i: made for i, made in zip(part.index, clips, strict=True) if isinstance(made, str)}
        good = {at: made for at, made in enumerate(clips) if isinstance(made, Tensor)}
        order = [(repeat, at) for repeat in range(self.num_repeats) for at in good]
        clips_per_step = videos_per_step * self.num_repeats
        if not order:
            config = self.config
            shape = (1, config.num_frames, config.num_channels, *config.image_hw)
            black = torch.zeros(shape, dtype=torch.uint8)
            return Batch(part.step, black, (0,), (0,), (0,), 0, clips_per_step, bad)
        row_of = {pair: row for row, pair in enumerate(order)}
        partners = [
            row_of.get((repeat, neighbour(at, len(clips))), row)
            for (repeat, at), row in row_of.items()
        ]
        return Batch(
            part.step,
            torch.stack([good[at][repeat] for repeat, at in order]),
            tuple(part.index[at] for _, at in order),
            tuple(repeat * videos_per_step + part.places[at] for repeat, at in order),
            tuple(partners),
            len(order),
            clips_per_step,
            bad,
        )

    def train_clips(self, epoch: int, index: int) -> Tensor:
        """Random crops of one random clip of video `index`: uint8 (repeats, T, C, H, W).

        As published, repeats share their frames and differ in all else: decoded once, they cost
        little more than one.
        """
        draw = random.Random(f"{self.seed} {epoch} {index}")
        frames = self._random_frames(index, draw)
        clips = [self._augmented(frames, draw)]
        for repeat in range(1, self.num_repeats):
            draw = random.Random(f"{self.seed} {epoch} {index} {repeat}")
            clips.append(self._augmented(frames, draw))
        return clips[0][None] if len(clips) == 1 else torch.stack(clips)

    def _random_frames(self, index: int, draw: random.Random) -> Frames:
        """The frames of a random clip, (T, H, W, 3), from memory, the disk cache, or the file."""
        video, name = self.videos.items[index], None
        cached = self._cache.get(index)
        if self._disk is not None:
            name = name_of(video, self.config.fps, self._on_damage)
            cached = None if name is None else self._disk.read(name)
        if cached is not None:
            return np.ascontiguousarray(cached[self._random_indices(len(cached), draw)])
        with open_video(video, self._on_damage) as reader:
            info = reader.info
            if info.num_gaps:
                self.damaged[index] = info.num_gaps
                warn_of_gaps(info)
            shown = shown_frames(reader, self.config.fps, part_of(video, info, reader.times))
            num_bytes = len(shown) * info.width * info.height * 3
            if self._disk is not None:  # damage is to be counted in each run
                keeps = name is not None and not info.num_gaps and self._disk.keeps(num_bytes)
            else:
                keeps = self._keeps(num_bytes)
            if not keeps:
                return reader.read([shown[i] for i in self._random_indices(len(shown), draw)])
            try:
                frames = reader.read(shown)
            except Exception:
                self._give_back(num_bytes)
                raise
        if self._disk is not None and name is not None:
            self._disk.write(name, frames)
        else:
            with self._lock:
                self._cache[index] = frames
        return frames[self._random_indices(len(frames), draw)]

    def _keeps(self, num_bytes: int) -> bool:
        """Whether a video of that size is to be kept, reserving the room for it."""
        with self._lock:
            if num_bytes > min(self._cache_left, _CACHED_VIDEO_BYTES):
                return False
            self._cache_left -= num_bytes
            return True

    def _give_back(self, num_bytes: int) -> None:
        """Room that was reserved for a video that cannot be read."""
        with self._lock:
            self._cache_left += num_bytes

    def _random_indices(self, num_video_frames: int, draw: random.Random) -> list[int]:
        num_frames, stride = self.config.num_frames, self.config.frame_stride
        if stride is None:
            return random_uniform_indices(num_video_frames, num_frames=num_frames, generator=draw)
        start = random_start(
            num_video_frames, num_frames=num_frames, frame_stride=stride, generator=draw
        )
        return clip_indices(
            num_video_frames, num_frames=num_frames, frame_stride=stride, start=start
        )

    def _augmented(self, frames: Frames, draw: random.Random) -> Tensor:
        clip = self.augmentation(frames, self.config.image_hw, draw)  # (T, 3, H, W)
        channels = self.config.num_channels
        if channels == 3:
            return clip
        made = to_channels(clip.permute(0, 2, 3, 1).numpy(), channels)
        return torch.from_numpy(made).permute(0, 3, 1, 2)


def train_batches(
    source: ClipSource,
    sampler: Sampler,
    *,
    first_step: int,
    num_steps: int,
    num_workers: int | None = None,
    pin_memory: bool = False,
) -> Generator[Batch]:
    """The parts of the steps from `first_step` up to `num_steps`, prepared ahead by threads.

    Exactly one Batch for every part, whatever can be read: the count of steps never depends on what
    is on the disk. `pin_memory` is for a GPU, which then copies while it computes.
    """

    def all_parts() -> Iterator[Part]:
        return (part for step in range(first_step, num_steps) for part in sampler.parts(step))

    def together(made: tuple[Part, list[Tensor | str]]) -> Batch:
        batch = source.batch(*made, videos_per_step=sampler.videos_per_step)
        return replace(batch, pixels=batch.pixels.pin_memory()) if pin_memory else batch

    videos = ((part.epoch, index) for part in all_parts() for index in part.index)
    reading = read_ahead(
        lambda video: try_twice(source.train_clips, *video),
        videos,
        num_threads=num_workers,
        num_ahead=_PARTS_AHEAD * sampler.videos_per_part,
    )
    with closing(reading) as clips:
        parts = ((part, list(islice(clips, len(part.index)))) for part in all_parts())
        # Clips become one tensor in a thread of its own, while the step before is computed.
        yield from read_ahead(together, parts, num_threads=1, num_ahead=1)


def neighbour(place: int, count: int) -> int:
    """The place in a part whose clip a clip is mixed with: in pairs, or in a ring if they are odd.

    Pairs are the same on any number of processes. The published code pairs row i with row B-1-i,
    where a clip may meet itself or, with repeats, another of its own video.

    >>> [neighbour(place, 4) for place in range(4)], [neighbour(place, 3) for place in range(3)]
    ([1, 0, 3, 2], [1, 2, 0])
    """
    return place ^ 1 if count % 2 == 0 else (place + 1) % count
