"""Answers of a model, kept on disk as they come, so that broken-off work goes on from them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from videomae.compute.distributed import Machine
from videomae.data.manifest import Videos
from videomae.hub import atomic_path
from videomae.model.modeling import VideoMAEPreTrainedModel
from videomae.processing.views import ViewMaker
from videomae.version import __version__


@dataclass(frozen=True)
class Partial:
    """The files `.NAME.RANK.part` of a folder: a key of 64 letters, then rows of numbers.

    Rows are the number of a video and the answer for it, float32. Only files of the same key are
    read. A process that is killed loses the batch that it is at.
    """

    folder: Path
    name: str
    key: str

    def __str__(self) -> str:
        return f"the answers so far are kept in {self.folder}; the same command goes on from there"

    def read(self, shape: tuple[int, ...]) -> dict[int, Tensor]:
        """The answers that all processes left, by the row of the video."""
        kind, found = _record(shape), {}
        for path in self._files():
            content = path.read_bytes()
            if content[:64] == self.key.encode():
                whole = (len(content) - 64) // kind.itemsize
                for row, answer in np.frombuffer(content, kind, whole, 64):
                    found[int(row)] = torch.from_numpy(answer.copy())
        return found

    def begin(self, rank: int, answers: dict[int, Tensor]) -> None:
        """Begin the file of a process with what is known already."""
        with atomic_path(self._path(rank)) as temporary:
            temporary.write_bytes(self.key.encode() + _rows(answers.items()))

    def add(self, rank: int, answers: Iterable[tuple[int, Tensor]]) -> None:
        """Append the answers of a process for some videos."""
        with self._path(rank).open("ab") as file:
            file.write(_rows(answers))

    def remove(self) -> None:
        """Remove the files, the work being done."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f".{self.name}.*.part"))

    def _path(self, rank: int) -> Path:
        return self.folder / f".{self.name}.{rank}.part"


def _rows(answers: Iterable[tuple[int, Tensor]]) -> bytes:
    return b"".join(
        np.array((row, answer.numpy()), _record(tuple(answer.shape))).tobytes()
        for row, answer in answers
    )


def _record(shape: tuple[int, ...]) -> np.dtype[np.void]:
    return np.dtype([("row", "<i8"), ("answer", "<f4", shape)])


def answers_key(
    model: VideoMAEPreTrainedModel,
    maker: ViewMaker,
    machine: Machine,
    *lists: Videos,
    early_exit: int = 0,
) -> str:
    """A digest of all that answers depend on: model, precision, pixels, views, videos."""
    merged = getattr(model.get_encoder(), "merge_tokens", 0)
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    described = {
        "version": __version__,
        "config": model.config.to_dict(),
        "processor": maker.processor.to_dict(),
        "dtype": str(machine.dtype),
        "num_clips": maker.num_clips,
        **({} if maker.num_crops == 1 else {"num_crops": maker.num_crops}),
        **({} if maker.on_damage == "refuse" else {"on_damage": maker.on_damage}),
        **({"merge_tokens": merged} if merged else {}),
        **({"early_exit": early_exit} if early_exit else {}),
        "videos": [[(str(video), video.file_state()) for video in each.items] for each in lists],
    }
    digest.update(json.dumps(described, default=str).encode())
    return digest.hexdigest()
