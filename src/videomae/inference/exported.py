"""A model as a graph for OpenVINO or ONNX Runtime: exported once, kept on disk, run from there.

Letters: B clips, T, C, H, W as everywhere; K labels, N tokens, D features. The only file that knows
openvino, nncf and onnxruntime; none of them is loaded before a model is to run on it.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae import tubelets
from videomae.compute import cpu
from videomae.errors import ConfigError
from videomae.inference.cache import (
    entry_name,
    find_entry,
    make_entry,
    num_bytes,
    remove_entry,
    touch_entry,
    weights_digest,
)
from videomae.model import attention, layers, modeling
from videomae.model.modeling import VideoMAEModel, VideoMAEPreTrainedModel

# What each engine can compute in, the first by default.
PRECISIONS = {"openvino": ("float32", "bfloat16", "int8"), "onnxruntime": ("float32",)}
# The packages that each needs, by the extra that installs them; int8 is an extra of its own.
NEEDS = {
    "openvino": ("openvino", ("openvino",)),
    "onnxruntime": ("onnx", ("onnxruntime", "onnx", "onnxscript")),
    "int8": ("int8", ("openvino", "nncf")),
}
# Files that turn weights into answers: a change in any of them makes all converted models anew.
_CODE = (cpu, attention, layers, modeling, tubelets)
# More clips hardly move the ranges; NNCF's own default.
MAX_CALIBRATION_CLIPS = 300

Floats = NDArray[np.float32]
Compute = Callable[[Floats], Floats]


class Answer(nn.Module):
    """A model with one input and one output: clips -> logits (B, K) or, on request, tokens.

    `tokens` gives the encoder's (B, N, D) in place of a classifier's logits. A model for
    pre-training, which needs a mask, answers with tokens alone.
    """

    def __init__(self, model: VideoMAEPreTrainedModel, *, tokens: bool = False) -> None:
        super().__init__()
        self.tokens = tokens or isinstance(model, VideoMAEModel)
        self.model = getattr(model, "videomae", model) if tokens else model

    def forward(self, pixel_values: Tensor) -> Tensor:
        output = self.model(pixel_values, return_dict=True)
        answer: Tensor = output.last_hidden_state if self.tokens else output.logits
        return answer


@dataclass(frozen=True)
class Export:
    """What is to be converted, by whom and how; calling it converts, or reads what is kept.

    engine: a key of PRECISIONS. answer: in evaluation mode, on the CPU, in float32. dtype: one of
    the engine's PRECISIONS. root: the folder of converted models. tell: is given one line where
    something takes long. calibration: real clips for int8, (T, C, H, W) each or (B, T, C, H, W);
    None takes the int8 model that is kept.

    ```python
    compute = Export("openvino", Answer(model), "float32", cache_root(), print)()
    compute(np.zeros((2, 16, 3, 224, 224), np.float32))  # (2, K); safe from several threads
    ```
    """

    engine: str
    answer: Answer
    dtype: str
    root: Path
    tell: Callable[[str], None]
    calibration: Iterable[Tensor] | None = field(default=None, repr=False)

    def __call__(self) -> Compute:
        """The function that runs. ConfigError where int8 was asked for and no clips were given."""
        clips = _as_clips(self.calibration) if self.dtype == "int8" else []
        name = entry_name(self.engine, self.facts(), _digest(clips) if clips else "")
        read = read_openvino if self.engine == "openvino" else _read_onnx
        kept = find_entry(self.root, name)
        if kept is not None:
            touch_entry(kept)
            try:
                return read(kept, self.dtype)
            except Exception as error:  # ONNX Runtime's have no base of their own
                why = " ".join(str(error).split())[:200]
                self.tell(f"{kept} cannot be read and is made anew ({why})")
                remove_entry(kept)
        if self.dtype == "int8" and not clips:
            raise ConfigError(
                "dtype='int8' needs clips to set its ranges by, and no int8 form of this model is "
                f"kept in {self.root}; pass calibration=, 100 to {MAX_CALIBRATION_CLIPS} clips of "
                "the kind it will see, or use dtype='auto'"
            )
        start = time.perf_counter()
        place = make_entry(self.root, name, lambda folder: self.write(folder, clips))
        self.tell(
            f"converted for {self.engine} ({self.dtype}), once: "
            f"{time.perf_counter() - start:.0f} s, {num_bytes(place) / 1e6:.0f} MB in {place}"
        )
        return read(place, self.dtype)

    def facts(self) -> dict[str, Any]:
        """All that a converted model hangs on; another one is made where any of it changes."""
        packages = ("torch", *NEEDS["int8" if self.dtype == "int8" else self.engine][1])
        return {
            "weights": weights_digest(self.answer),
            "config": self.answer.model.config.to_dict(),
            "tokens": self.answer.tokens,
            "dtype": self.dtype,
            "cpu": _processor(),
            "versions": {name: version_of(name) for name in packages},
            "code": _code_digest(),
        }

    def write(self, folder: Path, clips: list[Tensor]) -> None:
        """Convert into an empty folder."""
        if self.engine == "openvino":
            _write_openvino(self.answer, folder, clips)
        else:
            _write_onnx(self.answer, folder)


def check_engine(engine: str, dtype: str) -> None:
    """ConfigError where an engine lacks a package here, or cannot compute in a dtype.

    "auto" stands for any dtype.
    """
    if dtype not in ("auto", *PRECISIONS[engine]):
        raise ConfigError(
            f"engine={engine!r} does not compute in {dtype}; use {', '.join(PRECISIONS[engine])}, "
            "or engine='torch'"
        )
    need = "int8" if dtype == "int8" else engine
    extra, packages = NEEDS[need]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        what = "dtype='int8'" if need == "int8" else f"engine={engine!r}"
        raise ConfigError(
            f'{what} needs {" and ".join(missing)}; pip install "videomae[{extra}]", or use '
            "engine='torch'"
        )


def version_of(package: str) -> str:
    """The version of a package that is there, also where another distribution brings it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # onnxruntime-gpu, onnxruntime-openvino, ...
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))


def _exported(answer: Answer) -> torch.export.ExportedProgram:
    """The traced computation for any number of clips of the config's shape.

    Strict, because otherwise a plain `len(clips)` in the model ties it to the example's number.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    with torch.no_grad():
        return torch.export.export(
            answer, (_example(answer),), dynamic_shapes={"pixel_values": {0: batch}}, strict=True
        )


def _example(answer: Answer) -> Tensor:
    """Two clips: torch.export takes a single one for a constant of the shape."""
    return torch.zeros(2, *_clip_shape(answer))


def _clip_shape(answer: Answer) -> tuple[int, int, int, int]:
    config = answer.model.config
    return (config.num_frames, config.num_channels, *config.image_hw)


def _openvino() -> Any:
    """The package, kept from reporting its use over the network, as it does when imported."""
    with _hidden("openvino_telemetry"):
        import openvino
    return openvino


@functools.cache
def openvino_core() -> Any:
    """The process's one `openvino.Core`, which stays until its end.

    A core gives the thread that made it another stack for its signals, and with it takes that away
    again. Of several cores the first to go leaves behind a stack that is freed, and the next signal
    with a handler, a Ctrl-C say, ends the process with a segmentation fault (OpenVINO 2026.4).
    """
    return _openvino().Core()


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let the import of a package fail, as if it were not installed; as before afterwards."""
    if name in sys.modules:  # somebody else uses it, and decides
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def _write_openvino(answer: Answer, folder: Path, clips: list[Tensor]) -> None:
    ov = _openvino()
    graph = ov.convert_model(_exported(answer))
    # torch.export's ranges do not survive: only the number of clips is free.
    graph.reshape([-1, *_clip_shape(answer)])
    if clips:
        graph = _quantised(graph, clips)
    # The compiled form is not kept: it doubles the size, and saves 0.1 s of 0.2 s (motion-tiny) or
    # 0.3 s of 0.5 s (ViT-B) of each start.
    ov.save_model(graph, folder / "model.xml", compress_to_fp16=False)


def _quantised(graph: Any, clips: list[Tensor]) -> Any:
    """The same graph with int8 products, their ranges set by real clips."""
    openvino_core()  # before those that NNCF makes and drops, which then leave its stack in place
    # NNCF logs and draws bars on stdout, where results go.
    with contextlib.redirect_stdout(sys.stderr), _hidden("openvino_telemetry"):
        import nncf

        return nncf.quantize(
            graph,
            nncf.Dataset([clip[None].numpy() for clip in clips]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(clips),
        )


def read_openvino(folder: Path, dtype: str) -> Compute:
    """Clips (B, T, C, H, W) -> answers, by the converted model in a folder."""
    core = openvino_core()
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    half = dtype == "bfloat16" or (dtype == "int8" and native)
    compiled = core.compile_model(
        folder / "model.xml",
        "CPU",
        {
            # Said out loud, because OpenVINO takes bfloat16 by itself wherever there is any.
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        },
    )
    request = compiled.create_infer_request()
    lock = threading.Lock()  # a request serves one caller; all threads work for it as it is

    def compute(pixels: Floats) -> Floats:
        with lock:
            answer: Floats = request.infer([pixels], share_inputs=True)[0]  # a copy
        return answer

    return compute


def _write_onnx(answer: Answer, folder: Path) -> None:
    program = torch.onnx.export(_exported(answer), input_names=["pixel_values"], verbose=False)
    assert program is not None
    plain = folder / "plain.onnx"
    # Weights in a file of their own, because protobuf ends at 2 GB.
    program.save(plain, external_data=True)
    options = _onnx_options()
    options.optimized_model_filepath = str(folder / "model.onnx")
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", "model.onnx.data"
    )
    _onnx_session(plain, options)
    for path in folder.glob("plain.*"):
        path.unlink()


def _read_onnx(folder: Path, dtype: str) -> Compute:
    assert dtype == "float32"
    import onnxruntime

    options = _onnx_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # done
    session = _onnx_session(folder / "model.onnx", options)

    def compute(pixels: Floats) -> Floats:
        answer: Floats = session.run(None, {"pixel_values": pixels})[0]
        return answer

    return compute


def _onnx_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it warns that the result suits this machine alone: it shall
    return options


def _onnx_session(path: Path, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _as_clips(calibration: Iterable[Tensor] | None) -> list[Tensor]:
    """Single clips (T, C, H, W) in float32, at most MAX_CALIBRATION_CLIPS of them."""
    clips: list[Tensor] = []
    for given in calibration if calibration is not None else ():
        clips += [clip.float().cpu() for clip in (given if given.ndim == 5 else given[None])]
        if len(clips) >= MAX_CALIBRATION_CLIPS:
            break
    return clips[:MAX_CALIBRATION_CLIPS]


def _digest(clips: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(clip.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _code_digest() -> str:
    digest = hashlib.sha256()
    for path in (__file__, *(module.__file__ for module in _CODE)):
        digest.update(Path(str(path)).read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    """The name of the processor and what it can do, as torch sees it."""
    return " ".join(f"{name}={value}" for name, value in sorted(cpu.cpu_capabilities().items()))
