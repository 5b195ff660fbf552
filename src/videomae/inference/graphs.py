"""A model as a graph, with all that leads from a video to its answer, and without torch.

It is a file that `videomae export` wrote, or a converted model of the cache (see `exported`). For
each model file that this was made of lies a note beside it, with what else must be known:

    openvino-3f9a...e1/   model.xml model.bin note-5c20...9d.json

B clips; T, C, H, W as everywhere; K labels, N tokens, f slices of time, D features.
"""

import hashlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from videomae import hub
from videomae.compute.threads import num_threads
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, WeightsError, counted, to_json
from videomae.hub import PathLike, local_path
from videomae.inference import cache, runtimes
from videomae.inference.runtimes import NEEDS, Compute, Floats
from videomae.processing.plain import PlainProcessor
from videomae.processing.stored import IMAGE_FILE, VIDEO_FILE

# Views up to which a graph is done before torch: that saves 2 s of CPU time at the start, and loses
# up to 0.09 s with each view of 720p, whose pixels are made by numpy (benchmarks/speed.md).
FEW_VIEWS, _FEW_VIEWS_IN_FLOAT32 = 16, 2
_ENGINE_OF = {".onnx": "onnxruntime", ".xml": "openvino"}
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Whatever else in a folder of weights has a part in the answers.
_BESIDE = ("config.json", IMAGE_FILE, VIDEO_FILE)
# Files that turn weights into answers: a change in any of them makes all converted models anew.
_CODE = (
    *("inference/exported.py", "inference/formats.py", "inference/runtimes.py", "compute/cpu.py"),
    *("model/attention.py", "model/layers.py", "model/modeling.py", "positions.py", "tubelets.py"),
)


@dataclass(frozen=True, eq=False)
class Graph:
    """A model that is ready to run without torch: call it with clips, get logits.

    name: the engine. dtype: the precision. config: of an exported file what matters for its clips
    and labels. answers: "logits"; "tokens", of which `features` are made; or the one kind of
    features that an exported file has, "pooled", "per_time" or "tokens", with `norm` None.
    """

    name: str
    dtype: str
    config: VideoMAEConfig
    processor: PlainProcessor
    compute: Compute = field(repr=False)
    answers: str = "logits"
    is_file: bool = False
    norm: Mapping[str, Any] | None = field(default=None, repr=False)

    def __call__(self, pixel_values: Any) -> Floats:
        """Logits of clips: (B, T, C, H, W), arrays or tensors on the CPU -> (B, K) float32.

        Safe from several threads. ConfigError for a graph that answers with features.
        """
        if self.answers != "logits":
            raise ConfigError("this file answers with features, not with labels; use embed for it")
        return self._run(pixel_values)

    def features(self, pixel_values: Any, kind: str) -> Floats:
        """Features of clips: (B, D), (B, f, D) or (B, N, D); `predict.embed` explains each kind."""
        if self.is_file and kind != self.answers:
            raise ConfigError(
                f"features={kind!r} is not what this file answers with, which is {self.answers}; "
                "export it anew with --task embed --features"
            )
        tokens = self._run(pixel_values)
        if self.is_file:
            return tokens
        norm = None if self.norm is None else partial(_normed, self.norm)
        found: Floats = pool(tokens, kind, self.config.grid.frames, norm)
        return found

    def _run(self, pixel_values: Any) -> Floats:
        answer = self.compute(np.ascontiguousarray(pixel_values, np.float32))
        if not np.isfinite(answer).all():
            raise WeightsError(
                "the graph answers with numbers that are not finite: its file is damaged, or its "
                "precision too low; use engine='torch', dtype='float32', or export it anew"
            )
        return answer

    def describe(self) -> str:
        """One line on what runs where and how."""
        version = runtimes.version_of(self.name).split("-")[0]
        threads = counted(num_threads(), "thread")
        return f"{self.name} {version}, cpu ({threads}), {self.dtype}, without torch"


def pool(tokens: Any, features: str, slices: int, norm: Callable[[Any], Any] | None) -> Any:
    """Tokens (B, N, D) as "pooled" (B, D), "per_time" (B, f, D) of f slices, or "tokens".

    Arrays or tensors; norm: what a fine-tuned model normalises its means by.
    """
    if features == "tokens":
        return tokens
    slices = slices if features == "per_time" else 1
    means = tokens.reshape(len(tokens), slices, -1, tokens.shape[-1]).mean(2)  # (B, f, D)
    means = means if norm is None else norm(means)
    return means if features == "per_time" else means[:, 0]


def _normed(norm: Mapping[str, Any], means: Floats) -> Floats:
    """Layer norm over the last axis, by "weight", "bias" and "eps"."""
    means = means - means.mean(-1, keepdims=True)
    means /= np.sqrt(np.square(means).mean(-1, keepdims=True) + np.float32(norm["eps"]))
    weight, bias = (np.float32(norm[name]) for name in ("weight", "bias"))
    return means * weight + bias


def open_graph(
    model: PathLike, *, engine: str, dtype: str, device: str, tokens: bool = False
) -> Graph | None:
    """The graph of an exported file, or what the cache has of a model for an engine; else None.

    For the arguments see `engines.load`. None also where torch has to be asked: for another engine
    and, with "auto" as the device, where there may be a GPU. Raises ConfigError and WeightsError
    for an exported file that cannot be run like this.
    """
    if path := exported_file(model):
        return _open_exported(path, engine, dtype, device)
    here = device == "cpu" or (device == "auto" and _is_without_gpu())
    if engine not in runtimes.PRECISIONS or not here or not importlib.util.find_spec(engine):
        return None
    root = cache.cache_root()
    if next(root.glob(f"{engine}-*/note-*"), None) is None:
        return None
    files = _files_of(model)
    name = files and _note_name(files, engine, dtype, tokens)
    notes = [path for path in root.glob(f"{engine}-*/{name}") if path.is_file()]
    weights = _digest(files[0]) if files and notes else ""
    for path in sorted(notes, key=lambda path: path.parent.stat().st_mtime, reverse=True):
        with suppress(Exception):  # what is damaged is left to the conversion, which tells
            if (note := hub.read_json(path))["weights"] == weights:
                graph = _open_note(note, path.parent, engine, tokens)
                os.utime(path.parent)  # counts as used
                return graph
    return None


def automatic(
    model: PathLike, *, views: int, dtype: str, device: str, tokens: bool = False
) -> Graph | None:
    """The graph that the cache has of a model, where it answers sooner than torch is imported.

    views: how many there are to compute. For more than a few the start does not count, and torch
    makes pixels faster. OpenVINO's graph before ONNX Runtime's, which computes in float32 alone and
    so falls behind sooner where the processor multiplies in bfloat16.
    """
    limits = {"openvino": FEW_VIEWS, "onnxruntime": FEW_VIEWS}
    if _multiplies_bfloat16():
        limits["onnxruntime"] = _FEW_VIEWS_IN_FLOAT32
    options: dict[str, Any] = {"dtype": dtype, "device": device, "tokens": tokens}
    suited = (engine for engine, limit in limits.items() if views <= limit)
    graphs = (open_graph(model, engine=engine, **options) for engine in suited)
    return next(filter(None, graphs), None)


def write_note(
    place: Path,
    model: PathLike,
    *,
    engine: str,
    asked: str,
    dtype: str,
    tokens: bool,
    config: VideoMAEConfig,
    processor: Mapping[str, Any],
    norm: Mapping[str, Any] | None,
) -> None:
    """Say in the folder of a converted model of which files it was made, and what it needs.

    asked: the precision that was asked for, such as "auto"; dtype: the one that it has. Nothing is
    written where torch is needed all the same, or where the cache is for others to fill.
    """
    able = PlainProcessor.from_dict(processor).is_able(config.num_channels)
    files = _files_of(model) if able else None
    if files is None:
        return
    names = {_note_name(files, engine, each, tokens) for each in (asked, dtype)}
    if all((place / name).is_file() for name in names):
        return
    note = {
        "weights": _digest(files[0]),
        "dtype": dtype,
        "config": config.to_dict(),
        "processor": processor,
        "norm": norm,
    }
    with suppress(OSError):
        for name in names:
            hub.write_json(place / name, note)


def code_digest() -> str:
    """A hash of the code that turns weights into answers."""
    package = Path(hub.__file__).parent
    return hashlib.sha256(b"".join((package / name).read_bytes() for name in _CODE)).hexdigest()


def _open_note(note: Mapping[str, Any], place: Path, engine: str, tokens: bool) -> Graph:
    config = VideoMAEConfig.from_dict(note["config"])
    processor = PlainProcessor.from_dict(note["processor"])
    compute = runtimes.read_kept(place, engine, note["dtype"])
    answers = "tokens" if tokens else "logits"
    return Graph(engine, note["dtype"], config, processor, compute, answers, norm=note["norm"])


def _files_of(model: PathLike) -> tuple[list[Path], list[Path]] | None:
    """The files of a model's weights, and those beside them that matter; None where unclear."""
    path = local_path(model)
    if path.is_file():
        beside = [path.with_name(name) for name in _BESIDE]
        return [path], [each for each in beside if each.is_file()]
    with suppress(WeightsError):  # whoever loads the model says what is wrong
        names = [file for name in _WEIGHTS for file in (name, f"{name}.index.json")]
        weights = [hub.fetch(model, *names)]
        if weights[0].suffix == ".json":
            shards = sorted(set(hub.read_json(weights[0])["weight_map"].values()))
            weights += [hub.fetch(model, name) for name in shards]
        found = (hub.find(model, name) for name in _BESIDE)
        return weights, [each for each in found if each is not None]
    return None


def _note_name(files: tuple[list[Path], list[Path]], engine: str, dtype: str, tokens: bool) -> str:
    """The name of the note on files like these: all that can be known without reading weights."""
    weights, beside = files
    facts = {
        "weights": [(path.name, path.stat().st_size) for path in weights],
        "beside": [(path.name, _digest([path])) for path in beside],
        "engine": [engine, dtype, tokens],
        "processor": _processor_facts(),
        "versions": {name: _version_of(name) for name in ("torch", *NEEDS[engine][1])},
        "code": code_digest(),
    }
    text = to_json(facts, sort_keys=True).encode()
    return f"note-{hashlib.sha256(text).hexdigest()[:32]}.json"


def _version_of(package: str) -> str | None:
    return runtimes.version_of(package) if importlib.util.find_spec(package) else None


def _digest(files: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _processor_facts() -> list[str]:
    """What tells one processor from another, as far as that can be known without torch."""
    with suppress(OSError, UnicodeDecodeError):
        names = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return [line for line in lines if line.split("\t")[0].strip() in names]
    return [platform.machine(), platform.processor(), platform.node()]


def _multiplies_bfloat16() -> bool:
    words = " ".join(_processor_facts()).split()
    return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(words)


def _is_without_gpu() -> bool:
    """Whether torch, which is not asked, would surely take the CPU."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    return sys.platform == "linux" and not any(map(os.path.exists, drivers))


def exported_file(model: PathLike) -> Path | None:
    """The file of OpenVINO or ONNX that a path names, or that lies in the folder it names."""
    path = local_path(model)
    if path.is_dir() and not (path / "config.json").is_file():
        files = (path / f"model{suffix}" for suffix in _ENGINE_OF)
        return next(filter(Path.is_file, files), None)
    return path if path.suffix in _ENGINE_OF and path.is_file() else None


def _open_exported(path: Path, engine: str, dtype: str, device: str) -> Graph:
    own = _ENGINE_OF[path.suffix]
    if engine not in ("auto", own) or device not in ("auto", "cpu"):
        raise ConfigError(
            f"{path} runs by {own}, on a CPU, and engine={engine!r}, device={device!r} was asked "
            "for; leave them out"
        )
    if not importlib.util.find_spec(own):
        extra = NEEDS[own][0]
        raise ConfigError(f'{path} needs {own}; pip install "videomae[{extra}]"')
    facts, compute = runtimes.read_exported(path)
    try:
        config, processor = _config_of(facts), _processor_of(facts)
        answers = str(facts.get("features") or "pooled")
        answers = "logits" if facts["task"] == "classify" else answers
        precision = str(facts["dtype"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path} does not say what it expects and answers with, as files of `videomae export` "
            f"do ({type(error).__name__}: {error}); export the model anew"
        ) from error
    if dtype not in ("auto", precision):
        raise ConfigError(f"{path} is in {precision}, and dtype={dtype!r} was asked for")
    if not processor.is_able(config.num_channels):
        raise ConfigError(
            f"{path} asks for frames to be resized by {facts.get('resample')!r}, which only torch "
            "can; name the model that it was exported from"
        )
    return Graph(own, precision, config, processor, compute, answers, is_file=True)


def _config_of(facts: Mapping[str, Any]) -> VideoMAEConfig:
    """What a config says of clips and labels; one tubelet stands for those that are not known."""
    _, frames, channels, height, width = facts["input"]["shape"]
    problems = {None: "regression", "sigmoid": "multi_label_classification"}
    problem = problems.get(facts["output"]["activation"]) if facts["task"] == "classify" else None
    labels: dict[str, Any] = {"id2label": dict(enumerate(facts["labels"]))}
    return VideoMAEConfig(
        image_size=(height, width),
        patch_size=(height, width),
        num_frames=frames,
        tubelet_size=frames,
        num_channels=channels,
        frame_stride=facts["frame_stride"],
        fps=facts["fps"],
        problem_type=problem,
        **(labels if facts["labels"] else {}),
    )


def _processor_of(facts: Mapping[str, Any]) -> PlainProcessor:
    is_plain = not np.any(facts["mean"]) and np.all(np.equal(facts["std"], 1))
    return PlainProcessor(
        do_resize=facts["resize"] is not None,
        size=facts["resize"],
        resample=facts["resample"],
        do_center_crop=facts["crop"] is not None,
        crop_size=facts["crop"],
        do_rescale=facts["scale"] != 1,
        rescale_factor=facts["scale"],
        do_normalize=not is_plain,
        image_mean=facts["mean"],
        image_std=facts["std"],
    )
