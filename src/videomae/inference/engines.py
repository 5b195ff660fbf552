"""How a loaded model runs: on which device, in which precision, by which engine."""

import copy
import importlib.util
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from videomae.compute.cpu import cpu_multiplies_bfloat16, onednn_outruns_mkl, prepare_for_inference
from videomae.compute.devices import DTYPES, as_device, as_dtype
from videomae.compute.threads import num_threads
from videomae.config import VideoMAEConfig, check_choice
from videomae.errors import ConfigError, complain, counted
from videomae.hub import PathLike
from videomae.inference import graphs
from videomae.inference.cache import cache_root
from videomae.inference.exported import Answer, Export, Log, check_engine
from videomae.inference.runtimes import PRECISIONS, version_of
from videomae.model.attention import best_implementation
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VideoMAEPreTrainedModel,
)
from videomae.processing.views import find_processor
from videomae.settings import EngineName
from videomae.weights.checkpoint import has_pooled_norm
from videomae.weights.checks import check_answer
from videomae.weights.pretrained import load_trained

ENGINES: tuple[str, ...] = get_args(EngineName)

_WORTH_LOGGING_SECONDS = 2

# Converting takes half a minute, once, which narrower models never earn back (docs/engines.md).
_OPENVINO_MIN_HIDDEN_SIZE = 384  # ViT-S


@dataclass(frozen=True)
class Engine:
    """A model that is ready to run: call it with clips, get logits.

    name: which engine it is, never "auto". model: in evaluation mode, on `device`; in `dtype` where
    torch runs it, else in float32. answer: clips (B, T, C, H, W) in the model's dtype, on `device`
    -> logits (B, K), or tokens (B, N, D) where those were asked for.

    ```python
    engine = load("actions-tiny")
    engine(pixel_values).argmax(-1)  # (B, T, C, H, W) float -> (B,)
    print(engine.describe())         # torch 2.14.1, cpu (2 threads), float32, sdpa attention
    ```
    """

    name: str
    model: VideoMAEPreTrainedModel
    device: torch.device
    dtype: torch.dtype
    answer: Callable[[Tensor], Tensor]

    @property
    def config(self) -> VideoMAEConfig:
        """The model's config."""
        return self.model.config

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Logits of clips: (B, T, C, H, W) of any float type, anywhere -> (B, K) float32, CPU.

        Safe from several threads.
        """
        return self.run(self.answer, pixel_values)

    def run(
        self, compute: Callable[[Tensor], Tensor], pixel_values: Tensor, *, check: bool = True
    ) -> Tensor:
        """Compute anything of clips, brought to the model's device and dtype, without gradients.

        Returns what `compute` returns, as float32 on the CPU. ConfigError where a GPU's memory is
        too small, WeightsError where the answer is not finite, unless `check` is off.
        """
        try:
            with torch.inference_mode():
                pixels = pixel_values.to(self.device).to(self.model.dtype)
                answer = compute(pixels).float().cpu()
                return check_answer(answer) if check else answer
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{len(pixel_values)} clips at once do not fit into the memory of {self.device}; "
                "lower batch_size, or choose dtype='float16' or a smaller model"
            ) from error

    def describe(self) -> str:
        """One line on what runs where and how."""
        where = str(self.device)
        if self.device.type == "cpu":
            where = f"cpu ({counted(num_threads(), 'thread')})"
        elif self.device.type == "cuda":
            where = f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        dtype = str(self.dtype).removeprefix("torch.")
        if self.name in PRECISIONS:
            return f"{self.name} {version_of(self.name).split('-')[0]}, {where}, {dtype}"
        attention = self.config.attn_implementation
        if attention == "auto":
            tokens = self.config.grid.num_tokens
            attention = best_implementation(self.device.type, self.dtype, tokens)
        name = {"compile": "torch.compile"}.get(self.name, self.name)
        return f"{name} {torch.__version__.split('+')[0]}, {where}, {dtype}, {attention} attention"


def load(
    path_or_model: PathLike | VideoMAEPreTrainedModel,
    *,
    engine: str = "auto",
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    model_class: type[VideoMAEPreTrainedModel] = VideoMAEForVideoClassification,
    tokens: bool = False,
    calibration: Iterable[Tensor] | None = None,
    engine_cache_dir: PathLike | None = None,
    tell: Log | None = None,
    **overrides: Any,
) -> Engine:
    """Get a model ready to run.

    Args:
        path_or_model: what `model_class.from_pretrained` takes, or a loaded model, which is never
            changed: a copy runs where it is in training mode or `device` or `dtype` differ.
        engine: "torch"; "compile", which is torch.compile; "openvino" or "onnxruntime", on a CPU,
            which convert the model once and keep that; or "auto", see `fastest`.
        dtype: "float32", "bfloat16", "float16", "int8" (openvino alone), or "auto": a loaded
            model's own, else what `best_dtype` says.
        device: "cpu", "cuda:1", ... None or "auto" is where a loaded model is, else the best here.
        model_class: what to load; ignored for a loaded model, and with `tokens`.
        tokens: answer with the encoder's tokens (B, N, D), not with a classifier's logits. What is
            loaded is the encoder with its final norm, which is the classifier's in some models.
        calibration: real clips, (T, C, H, W) each or (B, T, C, H, W), that set the ranges of int8;
            needed once.
        engine_cache_dir: where converted models are kept, see `cache.cache_root`.
        tell: takes one line where something takes long or is not done as asked; by default it is
            printed to stderr.
        **overrides: further arguments of `model_class.from_pretrained`.

    Raises ConfigError for an unknown engine, dtype or device, for a pair that does not go together,
    and where an extra is not installed; WeightsError where nothing loads, and where part of the
    model is not in the checkpoint and would have to run untrained.
    """
    log, is_plain = tell or complain, not overrides
    if isinstance(path_or_model, VideoMAEPreTrainedModel):
        model = path_or_model
        at = model.device if device in (None, "auto") else as_device(device)
        precision = _precision(engine, dtype, at, model.dtype)
    else:
        at = as_device(device)
        precision = _precision(engine, dtype, at, None)
        # On a CPU in float32 first, because engines with weights of their own convert from that.
        first = torch.float32 if at.type == "cpu" else DTYPES[precision]
        if tokens and has_pooled_norm(path_or_model):
            model_class, overrides["num_labels"] = VideoMAEForVideoClassification, 0
        elif tokens:
            model_class = VideoMAEModel
        model = load_trained(model_class, path_or_model, dtype=first, **overrides).to(at)
    name = fastest(model.config, at, precision) if engine == "auto" else engine
    if getattr(model.get_encoder(), "merge_tokens", 0) and name != "torch":
        if engine != "auto":
            raise ConfigError(f"{name} cannot run a model that merges tokens; use engine='torch'")
        name = "torch"
    if isinstance(model, VideoMAEForPreTraining) and not tokens and name != "torch":
        if engine != "auto" or precision not in DTYPES:
            log(f"{name} cannot run a decoder with its masks; torch runs it")
        name, precision = "torch", precision if precision in DTYPES else "float32"
    computes = torch.float32 if name in PRECISIONS else DTYPES[precision]
    if model.training or (model.device, model.dtype) != (at, computes):
        model = copy.deepcopy(model).eval().to(at, computes)  # the model may be the caller's
    answer = Answer(model, tokens=tokens)
    run: Callable[[Tensor], Tensor]
    if name == "torch":
        run = prepare_for_inference(answer)
    elif name == "compile":  # which chooses the products by itself
        run = _compiled(answer, log)
    else:
        note = None
        if not isinstance(path_or_model, VideoMAEPreTrainedModel) and is_plain:
            note = _note(path_or_model, model, name, (str(dtype), precision), tokens)
        root = cache_root(engine_cache_dir)
        run = Export(name, answer, precision, root, log, calibration, note)
        if engine != "auto" or precision == "int8":
            run.ready()
    return Engine(name, model, at, getattr(torch, precision), run)


def fastest(config: VideoMAEConfig, device: torch.device, precision: str) -> str:
    """The engine that "auto" takes: openvino where it is there, was measured faster and pays."""
    return choose(config, device, precision)[0]


def choose(config: VideoMAEConfig, device: torch.device, precision: str) -> tuple[str, str]:
    """The engine that "auto" takes, and the reason in words."""
    if precision == "int8":
        return "openvino", "nothing else computes in int8"
    if device.type != "cpu":
        return "torch", f"nothing else runs on {device.type}"
    if config.hidden_size < _OPENVINO_MIN_HIDDEN_SIZE:
        return "torch", f"to convert a model narrower than {_OPENVINO_MIN_HIDDEN_SIZE} never pays"
    faster = {"bfloat16": cpu_multiplies_bfloat16, "float32": onednn_outruns_mkl}.get(precision)
    if faster is None or not faster():
        return "torch", f"nothing was measured to be faster in {precision} on such a processor"
    if not importlib.util.find_spec("openvino"):
        return "torch", 'OpenVINO would be faster here: pip install "videomae[openvino]"'
    return "openvino", f"it was measured to be the fastest in {precision} on such processors"


def _precision(
    engine: str, dtype: str | torch.dtype, device: torch.device, own: torch.dtype | None
) -> str:
    """The precision to compute in; `own` is the dtype of a model that came loaded."""
    check_choice("engine", engine, ENGINES)
    asked = str(dtype).removeprefix("torch.")
    if engine == "auto" and asked == "int8":
        engine = "openvino"
    if engine in PRECISIONS:
        check_engine(engine, asked, device)
    elif asked == "int8":
        raise ConfigError(
            f"engine={engine!r} does not compute in int8; use engine='openvino', or dtype='auto'"
        )
    if asked == "int8":
        return asked
    chosen = own if own is not None and asked == "auto" else as_dtype(dtype, device)
    name = str(chosen).removeprefix("torch.")
    if engine in PRECISIONS and (
        name not in PRECISIONS[engine] or (name == "bfloat16" and not cpu_multiplies_bfloat16())
    ):
        return "float32"
    return name


def _note(
    path: PathLike,
    model: VideoMAEPreTrainedModel,
    engine: str,
    precisions: tuple[str, str],
    tokens: bool,
) -> Callable[[Path], None]:
    """What writes beside a converted model how to run it without torch, see `graphs.write_note`.

    Not for a processor that comes with a warning, which would be heard but once.
    """

    def write(place: Path) -> None:
        with warnings.catch_warnings(record=True) as heard:
            processor = find_processor(path, model.config)
        if heard:
            return
        norm = getattr(model, "fc_norm", None) if tokens else None
        graphs.write_note(
            place,
            path,
            engine=engine,
            asked=precisions[0].removeprefix("torch."),
            dtype=precisions[1],
            tokens=tokens,
            config=model.config,
            processor=processor.to_dict(),
            norm=norm
            and {"weight": norm.weight.tolist(), "bias": norm.bias.tolist(), "eps": norm.eps},
        )

    return write


def _compiled(answer: Answer, log: Log) -> Callable[[Tensor], Tensor]:
    """The module by torch.compile, which logs how long it took when it compiles."""
    # The second size of batch makes it compile for all others as well, so that there are three
    # compilations at most: one clip alone is always a case by itself.
    compiled: Callable[[Tensor], Tensor] = torch.compile(answer, fullgraph=True)
    lock = threading.Lock()
    seen: set[int] = set()

    def run(pixel_values: Tensor) -> Tensor:
        answer.check(pixel_values)
        batch = len(pixel_values)
        if batch in seen:
            return compiled(pixel_values)
        with lock:
            start = time.perf_counter()
            try:
                found = compiled(pixel_values)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[0]
                raise ConfigError(
                    f"torch.compile cannot compile this here ({reason}); on a CPU it needs a C++ "
                    "compiler; use engine='torch'"
                ) from error
            seconds = time.perf_counter() - start
            if seconds > _WORTH_LOGGING_SECONDS:
                log(f"torch.compile for batches of {batch}: {seconds:.0f} s")
            seen.add(batch)
        return found

    return run
