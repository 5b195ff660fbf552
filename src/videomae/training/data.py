"""From a folder of videos to batches of clips, in an order that follows from the seed alone.

Which clip is drawn from a video, and how it is cropped, is a function of (seed, epoch, index), so
that neither the number of threads nor a resumed run changes what a step sees.
"""

import random
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from videomae.errors import ConfigError, VideoError
from videomae.sampling import frame_indices, random_start, random_uniform_indices, views
from videomae.training.settings import TrainSettings
from videomae.video import Frames, VideoReader
from videomae.video_limits import VIDEO_SUFFIXES

# A video is kept decoded only up to this size, so that one long file cannot fill the cache.
_CACHED_VIDEO_BYTES = 16 << 20
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Videos:
    """A list of video files with their class numbers; -1 where a file has none."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def list_videos(folder: Path, *, classes: Sequence[str] | None = None) -> Videos:
    """The videos of a folder: one class per sub-folder, numbered by name; or no classes at all.

        data/zoom_in/1.mp4  data/zoom_out/7.mp4   ->  classes ("zoom_in", "zoom_out")
        data/1.mp4          data/2.mp4            ->  classes ()

    With `classes` (those of a trained model) the numbers are theirs, and a folder that is not
    among them raises ConfigError, as does a folder without videos.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"data folder {folder} does not exist or is not a folder")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not found:
        raise ConfigError(
            f"data folder {folder} holds no videos (looked for {' '.join(sorted(VIDEO_SUFFIXES))})"
        )
    names = [path.relative_to(folder).parts[0] for path in found]
    if any(folder / name == path for name, path in zip(names, found, strict=True)):
        return Videos(tuple(found), (-1,) * len(found), ())
    known = tuple(classes) if classes is not None else tuple(sorted(set(names)))
    strange = sorted(set(names) - set(known))
    if strange:
        raise ConfigError(
            f"{folder} has the class folders {strange[:5]}, which the model does not know; "
            f"it knows {list(known[:12])}"
        )
    return Videos(tuple(found), tuple(known.index(name) for name in names), known)


def split_folder(data: Path, eval_data: Path | None = None) -> tuple[Path, Path | None]:
    """Where the training videos are, and the ones for evaluation: train/ and val/ (or test/)."""
    train = data / "train" if (data / "train").is_dir() else data
    if eval_data is None and train != data:
        eval_data = next((data / n for n in ("val", "test") if (data / n).is_dir()), None)
    return train, eval_data


@dataclass(frozen=True)
class Batch:
    """Clips as uint8 (B, T, C, H, W) with class numbers (B), and which videos they are."""

    pixels: Tensor
    labels: Tensor
    index: tuple[int, ...]


class ClipSource:
    """Draws clips from videos, keeping small ones decoded, and counting those that do not open."""

    def __init__(
        self, videos: Videos, config: VideoMAEConfig, settings: TrainSettings | None = None
    ) -> None:
        settings = settings or TrainSettings(cache_gb=0)
        self.videos, self.config = videos, config
        self.seed, self.crop_scales = settings.seed, settings.crop_scales
        self.max_bad_fraction = settings.max_bad_fraction
        self.bad: dict[Path, str] = {}
        self._cache: dict[int, Frames] = {}
        self._cache_left = int(settings.cache_gb * 2**30)
        self._lock = threading.Lock()

    def train_clip(self, epoch: int, index: int) -> Tensor:
        """A random clip and crop of video `index`: uint8 (T, C, H, W)."""
        draw = random.Random(f"{self.seed} {epoch} {index}")
        path = self.videos.paths[index]
        cached = self._cache.get(index)
        if cached is not None:
            return self._cropped(cached[self._random_indices(len(cached), draw)], draw)
        with VideoReader(path) as reader:
            info = reader.info
            if self._keeps(info.num_frames * info.width * info.height * 3):
                frames = reader.read(range(info.num_frames))
                with self._lock:
                    self._cache[index] = frames
                frames = frames[self._random_indices(len(frames), draw)]
            else:
                frames = reader.read(self._random_indices(info.num_frames, draw))
        return self._cropped(frames, draw)

    def _keeps(self, num_bytes: int) -> bool:
        """Whether a video of that size is to be kept, reserving the room for it."""
        with self._lock:
            if num_bytes > min(self._cache_left, _CACHED_VIDEO_BYTES):
                return False
            self._cache_left -= num_bytes
            return True

    def _random_indices(self, num_video_frames: int, draw: random.Random) -> list[int]:
        num_frames, stride = self.config.num_frames, self.config.frame_stride
        if stride is None:
            return random_uniform_indices(num_video_frames, num_frames=num_frames, generator=draw)
        start = random_start(
            num_video_frames, num_frames=num_frames, frame_stride=stride, generator=draw
        )
        return frame_indices(
            num_video_frames, num_frames=num_frames, frame_stride=stride, start=start
        )

    def _cropped(self, frames: Frames, draw: random.Random) -> Tensor:
        box = random_crop_box(
            frames.shape[1], frames.shape[2], self.config.image_hw, self.crop_scales, draw
        )
        return crop_and_resize(frames, box, self.config.image_hw)

    def view_clips(self, index: int, *, num_clips: int = 1, num_crops: int = 1) -> Tensor:
        """The evaluation views of video `index`, each frame decoded once: (V, T, C, H, W)."""
        config, path = self.config, self.videos.paths[index]
        with VideoReader(path) as reader:
            info = reader.info
            height, width = covering_size(info.height, info.width, config.image_hw)
            chosen = views(
                info.num_frames,
                height,
                width,
                num_frames=config.num_frames,
                frame_stride=config.frame_stride,
                size=config.image_hw,
                num_clips=num_clips,
                num_crops=num_crops,
            )
            needed = sorted({i for view in chosen for i in view.indices})
            whole = (0, 0, info.height, info.width)
            frames = crop_and_resize(reader.read(needed), whole, (height, width))
        place = {number: row for row, number in enumerate(needed)}
        clips = []
        for view in chosen:
            top, left, view_height, view_width = view.box
            clip = frames[[place[i] for i in view.indices]]
            clips.append(clip[:, :, top : top + view_height, left : left + view_width])
        return torch.stack(clips)

    def note_bad(self, index: int, error: VideoError) -> None:
        """Remember an unreadable video; VideoError with the list when there are too many."""
        self.bad.setdefault(self.videos.paths[index], str(error))
        allowed = self.max_bad_fraction * len(self.videos)
        if len(self.bad) > allowed:
            listed = "; ".join(self.bad.values())
            raise VideoError(
                f"{len(self.bad)} of {len(self.videos)} videos cannot be read, more than "
                f"max_bad_fraction={self.max_bad_fraction} allows: {listed}"
            )


def train_batches(
    source: ClipSource, *, batch_size: int, epoch: int, start_step: int = 0, num_workers: int = 2
) -> Iterator[Batch]:
    """The batches of one epoch from `start_step` on, each video once, prepared ahead by threads.

    The last incomplete batch is left out, as in the published recipes, unless it is the only one.
    An unreadable video makes its batch smaller; it is never replaced by another.
    """
    order = list(range(len(source.videos)))
    random.Random(f"{source.seed} {epoch} order").shuffle(order)
    size = min(batch_size, len(order))
    rows = [order[i : i + size] for i in range(0, len(order) - size + 1, size)][start_step:]
    ahead: deque[tuple[list[int], list[Future[Tensor]]]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for row in [*rows, *([None] * _BATCHES_AHEAD)]:
                if row is not None:
                    tasks = [pool.submit(source.train_clip, epoch, index) for index in row]
                    ahead.append((row, tasks))
                if ahead and (row is None or len(ahead) > _BATCHES_AHEAD):
                    batch = _gather(source, *ahead.popleft())
                    if batch is not None:
                        yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _gather(source: ClipSource, row: list[int], tasks: list[Future[Tensor]]) -> Batch | None:
    clips, kept = [], []
    for index, task in zip(row, tasks, strict=True):
        try:
            clips.append(task.result())
            kept.append(index)
        except VideoError as error:
            source.note_bad(index, error)
    if not clips:
        return None
    labels = torch.tensor([source.videos.labels[index] for index in kept])
    return Batch(torch.stack(clips), labels, tuple(kept))


def num_steps(num_videos: int, batch_size: int) -> int:
    """Steps of one epoch.

    >>> num_steps(100, 32), num_steps(10, 32)
    (3, 1)
    """
    return max(num_videos // batch_size, 1)


def random_crop_box(
    height: int,
    width: int,
    target_hw: tuple[int, int],
    scales: Sequence[float],
    draw: random.Random,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a crop with the target's shape, its side drawn from `scales`.

    Scale 1 is the largest crop that fits. The published code draws height and width apart and
    places the box at 13 fixed points; here the shape is kept and every place is as likely.
    """
    unit = min(height / target_hw[0], width / target_hw[1]) * draw.choice(scales)
    crop_height = max(min(round(target_hw[0] * unit), height), 1)
    crop_width = max(min(round(target_hw[1] * unit), width), 1)
    top = draw.randint(0, height - crop_height)
    return top, draw.randint(0, width - crop_width), crop_height, crop_width


def covering_size(height: int, width: int, target_hw: tuple[int, int]) -> tuple[int, int]:
    """The size that keeps a frame's shape and just covers the target, as the recipes test.

    >>> covering_size(240, 320, (224, 224))
    (224, 298)
    """
    if height * target_hw[1] <= width * target_hw[0]:
        return target_hw[0], int(width * target_hw[0] / height)
    return int(height * target_hw[1] / width), target_hw[1]


def crop_and_resize(
    frames: Frames, box: tuple[int, int, int, int], target_hw: tuple[int, int]
) -> Tensor:
    """Frames uint8 (T, H, W, C) cut to a box and resized with antialiasing: (T, C, H, W)."""
    top, left, height, width = box
    cut = torch.from_numpy(frames[:, top : top + height, left : left + width])
    cut = cut.permute(0, 3, 1, 2)  # (T, C, H, W)
    if (height, width) == target_hw:
        return cut.contiguous()
    return F.interpolate(cut, size=target_hw, mode="bilinear", antialias=True).contiguous()


def normalize(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 clips (B, T, C, H, W) -> float32 on the device, with ImageNet mean and std."""
    mean = torch.tensor(IMAGENET_MEAN).mul(255).view(1, 1, 3, 1, 1).to(device, non_blocking=True)
    std = torch.tensor(IMAGENET_STD).mul(255).view(1, 1, 3, 1, 1).to(device, non_blocking=True)
    return (pixels.to(device, non_blocking=True).float() - mean) / std
