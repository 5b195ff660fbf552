"""A model as a graph for OpenVINO or ONNX Runtime: exported once, kept on disk, run from there.

Letters: B clips, T, C, H, W as everywhere; K labels, N tokens, D features.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae import positions, tubelets
from videomae.compute import cpu
from videomae.errors import ConfigError
from videomae.inference import cache
from videomae.model import attention, layers, modeling
from videomae.model.modeling import VideoMAEModel, VideoMAEPreTrainedModel

# The precisions that each engine computes in, the first by default.
PRECISIONS = {"openvino": ("float32", "bfloat16", "int8"), "onnxruntime": ("float32",)}
# The packages that each needs, by the extra that installs them; int8 is an extra of its own.
NEEDS = {
    "openvino": ("openvino", ("openvino",)),
    "onnxruntime": ("onnx", ("onnxruntime", "onnx", "onnxscript")),
    "int8": ("int8", ("openvino", "nncf")),
}
# Files that turn weights into answers: a change in any of them makes all converted models anew.
_MODULES = (cpu, attention, layers, modeling, positions, tubelets)
_CODE = (__file__, *(str(module.__file__) for module in _MODULES))
# More clips hardly move the ranges; NNCF's own default.
MAX_CALIBRATION_CLIPS = 300

Log = Callable[[str], object]
Floats = NDArray[np.float32]
Compute = Callable[[Floats], Floats]


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


@dataclass(eq=False)
class Export:
    """A model that is converted, or read from where it is kept, when it is first called.

    answer: in evaluation mode, on the CPU, in float32. root: the folder of converted models. For
    the others see `engines.load`. Safe from several threads.
    """

    engine: str
    answer: Answer
    dtype: str
    root: Path
    log: Log
    calibration: Iterable[Tensor] | None = field(default=None, repr=False)
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
        by_openvino = self.engine == "openvino"
        read, write = (read_openvino, _write_openvino) if by_openvino else (_read_onnx, _write_onnx)
        kept = cache.find_entry(self.root, name)
        if kept is not None:
            try:
                return read(kept, self.dtype)
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
        return read(place, self.dtype)

    def entry_name(self, clips: Sequence[Tensor] = ()) -> str:
        """The name of the converted model's folder, another one where anything it hangs on is.

        clips: those that set the ranges of int8; without them it is the start of the name.
        """
        packages = ("torch", *NEEDS["int8" if self.dtype == "int8" else self.engine][1])
        code = b"".join(Path(path).read_bytes() for path in _CODE)
        facts = {
            "weights": cache.digest(sorted(self.answer.state_dict().items())),
            "config": self.answer.model.config.to_dict(),
            "tokens": self.answer.tokens,
            "dtype": self.dtype,
            "cpu": {name: str(value) for name, value in cpu.CPU_CAPABILITIES.items()},
            "versions": {name: version_of(name) for name in packages},
            "code": hashlib.sha256(code).hexdigest(),
        }
        text = json.dumps(facts, sort_keys=True)
        name = f"{self.engine}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
        return f"{name}-{cache.digest(enumerate(clips))[:16]}" if clips else name


def check_engine(engine: str, dtype: str, device: torch.device) -> None:
    """Raise ConfigError where an engine lacks a package, or cannot compute in a dtype or there.

    "auto" stands for any dtype.
    """
    if dtype not in ("auto", *PRECISIONS[engine]):
        raise ConfigError(
            f"engine={engine!r} does not compute in {dtype}; use {', '.join(PRECISIONS[engine])}, "
            "or engine='torch'"
        )
    extra, packages = NEEDS["int8" if dtype == "int8" else engine]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        what = "dtype='int8'" if dtype == "int8" else f"engine={engine!r}"
        raise ConfigError(
            f'{what} needs {" and ".join(missing)}; pip install "videomae[{extra}]", or use '
            "engine='torch'"
        )
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


def version_of(package: str) -> str:
    """The version of a package that is there, also where another distribution brings it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # onnxruntime-gpu, onnxruntime-openvino, ...
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))


def _exported(answer: Answer) -> torch.export.ExportedProgram:
    """The traced computation for any number of clips of the config's shape."""
    example = torch.zeros(2, *answer.clip_shape)  # a single clip would be a constant of the shape
    shapes = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=4096)}}
    with torch.no_grad():
        # Strict, else a plain `len(clips)` in the model ties it to the number of the example.
        return torch.export.export(answer, (example,), dynamic_shapes=shapes, strict=True)


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """Keep OpenVINO and NNCF from reporting their use over the network, as a CI job does.

    They would when they are imported and when they convert, see docs/engines.md.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


@functools.cache
def openvino_core() -> Any:
    """The process's one `openvino.Core`, which stays until its end.

    A core gives the thread that made it another stack for its signals, and with it takes that away
    again. Of several cores the first to go leaves behind a stack that is freed, and the next signal
    with a handler, a Ctrl-C say, ends the process with a segmentation fault (OpenVINO 2026.4).
    """
    with _unreported():
        import openvino
    return openvino.Core()


def _write_openvino(answer: Answer, folder: Path, clips: list[Tensor]) -> None:
    openvino_core()  # before those that NNCF makes and drops, which then leave its stack in place
    program = _exported(answer)
    # NNCF logs and draws bars on stdout, where results go.
    with contextlib.redirect_stdout(sys.stderr), _unreported():
        import openvino

        graph = openvino.convert_model(program)
        # torch.export's ranges do not survive: only the number of clips is free.
        graph.reshape([-1, *answer.clip_shape])
        if clips:
            import nncf

            graph = nncf.quantize(
                graph,
                nncf.Dataset([clip[None].numpy() for clip in clips]),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(clips),
            )
    # The compiled form is not kept: it doubles the size, and saves 0.1 to 0.3 s of each start.
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)


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


def _write_onnx(answer: Answer, folder: Path, _clips: list[Tensor]) -> None:
    program = torch.onnx.export(_exported(answer), input_names=["pixel_values"], verbose=False)
    assert program is not None
    plain = folder / "plain.onnx"
    # Weights in a file of their own, because protobuf ends at 2 GB.
    program.save(plain, external_data=True)
    _onnx_session(plain, save_to=folder / "model.onnx")
    for path in folder.glob("plain.*"):
        path.unlink()


def _read_onnx(folder: Path, _dtype: str) -> Compute:
    session = _onnx_session(folder / "model.onnx")
    return lambda pixels: session.run(None, {"pixel_values": pixels})[0]


def _onnx_session(path: Path, *, save_to: Path | None = None) -> Any:
    """A session of a model that was optimised before, or one that optimises it and saves it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it warns that the result suits this machine alone: it shall
    if save_to is None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:
        options.optimized_model_filepath = str(save_to)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{save_to.name}.data"
        )
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _as_clips(calibration: Iterable[Tensor] | None) -> list[Tensor]:
    """Single clips (T, C, H, W) in float32, at most MAX_CALIBRATION_CLIPS of them."""
    given = () if calibration is None else calibration
    clips = (clip for each in given for clip in (each if each.ndim == 5 else each[None]))
    return [clip.float().cpu() for clip in islice(clips, MAX_CALIBRATION_CLIPS)]
