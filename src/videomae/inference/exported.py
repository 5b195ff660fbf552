"""A model as a graph for OpenVINO or ONNX Runtime: exported once, kept on disk, run from there.

Letters: B clips, T, C, H, W as everywhere; K labels, N tokens, D features.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videomae.compute import cpu
from videomae.errors import ConfigError
from videomae.inference import cache, formats, graphs, runtimes
from videomae.inference.runtimes import NEEDS, PRECISIONS, Compute, check_packages, version_of
from videomae.model import modeling
from videomae.model.modeling import VideoMAEModel, VideoMAEPreTrainedModel

# More clips hardly move the ranges; NNCF's own default.
MAX_CALIBRATION_CLIPS = 300

Log = Callable[[str], object]


class Answer(nn.Module):
    """A model with one input and one output: clips -> logits (B, K), or the encoder's (B, N, D).

    A model for pre-training, which needs a mask, answers with `tokens` alone.
    """

    def __init__(self, model: VideoMAEPreTrainedModel, *, tokens: bool = False) -> None:
        super().__init__()
        self.tokens = tokens or isinstance(model, VideoMAEModel)
        self.model: Any = getattr(model, "videomae", model) if tokens else model

    def forward(self, pixel_values: Tensor) -> Tensor:
        output = self.model(pixel_values, return_dict=True)
        answer: Tensor = output.last_hidden_state if self.tokens else output.logits
        return answer

    def check(self, pixel_values: Tensor) -> None:
        """Raise ConfigError, in the model's own words, for clips that it cannot take."""
        modeling.check_clips(pixel_values, self.model.config)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, C, H, W) of the clips that the model takes."""
        config = self.model.config
        return (config.num_frames, config.num_channels, *config.image_hw)


class Features(nn.Module):
    """A model with one output: clips -> features, as `predict.embed` explains them."""

    def __init__(self, model: VideoMAEPreTrainedModel, features: str) -> None:
        super().__init__()
        self.answer, self.features = Answer(model, tokens=True), features
        self.norm: nn.Module | None = getattr(model, "fc_norm", None)

    def forward(self, pixel_values: Tensor) -> Tensor:
        slices = self.answer.model.config.grid.frames
        answer: Tensor = graphs.pool(self.answer(pixel_values), self.features, slices, self.norm)
        return answer


@dataclass(eq=False)
class Export:
    """A model that is converted, or read from where it is kept, when it is first called.

    answer: in evaluation mode, on the CPU, in float32. root: the folder of converted models. note:
    is called with the folder of the one that runs. For the others see `engines.load`. Safe from
    several threads.
    """

    engine: str
    answer: Answer
    dtype: str
    root: Path
    log: Log
    calibration: Iterable[Tensor] | None = field(default=None, repr=False)
    note: Callable[[Path], object] | None = field(default=None, repr=False)
    _compute: Compute | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __call__(self, pixel_values: Tensor) -> Tensor:
        self.answer.check(pixel_values)
        return torch.from_numpy(self.ready()(pixel_values.contiguous().numpy()))

    def ready(self) -> Compute:
        """The function that runs, made once."""
        with self._lock, torch.inference_mode(False):  # torch.export does not work under it
            if self._compute is None:
                self._compute = self.read_or_convert()
            return self._compute

    def read_or_convert(self) -> Compute:
        """The function that runs, by the converted model that is kept, or by a new one.

        ConfigError where int8 needs clips and none were given.
        """
        clips = _as_clips(self.calibration) if self.dtype == "int8" else []
        name = self.entry_name(clips)
        write = _write_openvino if self.engine == "openvino" else _write_onnx
        kept = cache.find_entry(self.root, name)
        if kept is not None:
            try:
                return self._read(kept)
            except Exception as error:  # ONNX Runtime's have no base of their own
                why = " ".join(str(error).split())[:200]
                self.log(f"{kept} cannot be read and is made anew ({why})")
                cache.remove_entry(kept)
        if self.dtype == "int8" and not clips:
            raise ConfigError(
                "dtype='int8' needs clips to set its ranges by, and no int8 form of this model is "
                f"kept in {self.root}; pass calibration=, 100 to {MAX_CALIBRATION_CLIPS} clips of "
                "the kind it will see, or use dtype='auto'"
            )
        start = time.perf_counter()
        place = cache.make_entry(self.root, name, lambda folder: write(self.answer, folder, clips))
        self.log(
            f"converted for {self.engine} ({self.dtype}), once: "
            f"{time.perf_counter() - start:.0f} s, {cache.num_bytes(place) / 1e6:.0f} MB in {place}"
        )
        return self._read(place)

    def _read(self, place: Path) -> Compute:
        compute = runtimes.read_kept(place, self.engine, self.dtype)
        if self.note is not None:
            self.note(place)
        return compute

    def entry_name(self, clips: Sequence[Tensor] = ()) -> str:
        """The name of the converted model's folder, another one where anything it hangs on is.

        clips: those that set the ranges of int8; without them it is the start of the name.
        """
        packages = ("torch", *NEEDS["int8" if self.dtype == "int8" else self.engine][1])
        facts = {
            "weights": digest(sorted(self.answer.state_dict().items())),
            "config": self.answer.model.config.to_dict(),
            "tokens": self.answer.tokens,
            "dtype": self.dtype,
            "cpu": {name: str(value) for name, value in cpu.CPU_CAPABILITIES.items()},
            "versions": {name: version_of(name) for name in packages},
            "code": graphs.code_digest(),
        }
        text = json.dumps(facts, sort_keys=True)
        name = f"{self.engine}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
        return f"{name}-{digest(enumerate(clips))[:16]}" if clips else name


def digest(tensors: Iterable[tuple[object, Tensor]]) -> str:
    """A hash over the names, shapes, types and values of tensors: 64 hex digits."""
    found = hashlib.sha256()
    for name, value in tensors:
        found.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        # As bytes, because numpy knows no bfloat16.
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_engine(engine: str, dtype: str, device: torch.device) -> None:
    """Raise ConfigError where an engine lacks a package, or cannot compute in a dtype or there.

    "auto" stands for any dtype.
    """
    if dtype not in ("auto", *PRECISIONS[engine]):
        raise ConfigError(
            f"engine={engine!r} does not compute in {dtype}; use {', '.join(PRECISIONS[engine])}, "
            "or engine='torch'"
        )
    name = "int8" if dtype == "int8" else engine
    what = "dtype='int8'" if dtype == "int8" else f"engine={engine!r}"
    check_packages(name, f"{what} needs", "use engine='torch'")
    if device.type != "cpu":
        raise ConfigError(
            f"engine={engine!r} runs on a CPU, and device is {device}; pass device='cpu', or use "
            "engine='torch'"
        )
    if dtype == "bfloat16" and not cpu.cpu_multiplies_bfloat16():
        raise ConfigError(
            f"this processor does not multiply in bfloat16, so that {engine} would run in float32; "
            "use dtype='float32' or 'auto'"
        )


def _write_openvino(answer: Answer, folder: Path, clips: list[Tensor]) -> None:
    formats.write_openvino(answer, folder / "model.xml", answer.clip_shape, clips=clips)


def _write_onnx(answer: Answer, folder: Path, _clips: list[Tensor]) -> None:
    plain = folder / "plain.onnx"
    formats.write_onnx(formats.trace(answer, answer.clip_shape), plain)
    runtimes.onnx_session(plain, save_to=folder / "model.onnx")
    for path in folder.glob("plain.*"):
        path.unlink()


def _as_clips(calibration: Iterable[Tensor] | None) -> list[Tensor]:
    """Single clips (T, C, H, W) in float32, at most MAX_CALIBRATION_CLIPS of them."""
    given = () if calibration is None else calibration
    clips = (clip for each in given for clip in (each if each.ndim == 5 else each[None]))
    return [clip.float().cpu() for clip in islice(clips, MAX_CALIBRATION_CLIPS)]
