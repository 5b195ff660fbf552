"""Files of OpenVINO and ONNX, read to run; nothing here imports torch.

They are read as functions of clips (B, T, C, H, W), float32, to answers. Facts about a model, such
as its labels, are one text of JSON in each file, under the key `videomae`.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.compute.threads import num_threads
from videomae.errors import ConfigError, WeightsError, in_brief, parse_json

Floats = NDArray[np.float32]
Compute = Callable[[Floats], Floats]

FACTS = "videomae"  # the key of the facts
INPUT = "pixel_values"
# The precisions that each engine computes in, the first by default.
PRECISIONS = {"openvino": ("float32", "bfloat16", "int8"), "onnxruntime": ("float32",)}
# The packages that each needs, by the extra that installs them; int8 is an extra of its own.
NEEDS = {
    "openvino": ("openvino", ("openvino",)),
    "onnxruntime": ("onnx", ("onnxruntime", "onnx", "onnxscript")),
    "int8": ("int8", ("openvino", "nncf")),
    "executorch": ("executorch", ("executorch",)),
}


def check_packages(name: str, what: str, instead: str) -> None:
    """Raise ConfigError, with the extra, where packages of an entry of NEEDS are missing."""
    extra, packages = NEEDS[name]
    missing = [each for each in packages if importlib.util.find_spec(each) is None]
    if missing:
        raise ConfigError(
            f'{what} {" and ".join(missing)}; pip install "videomae[{extra}]", or {instead}'
        )


def version_of(package: str) -> str:
    """The version of a package that is there, also where another distribution brings it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # onnxruntime-gpu, onnxruntime-openvino, ...
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))


@contextlib.contextmanager
def unreported() -> Iterator[None]:
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
    with unreported():
        import openvino
    return openvino.Core()


def read_kept(place: Path, engine: str, dtype: str) -> Compute:
    """Clips -> answers by the graph in a folder of the cache."""
    if engine == "openvino":
        return read_openvino(place / "model.xml", dtype)
    return read_onnx(place / "model.onnx", optimize=False)  # it was, for this machine


def read_exported(path: Path) -> tuple[dict[str, Any], Compute]:
    """The facts of a file that `videomae export` wrote, none where it has none, and what it does.

    WeightsError where it cannot be read.
    """
    try:
        if path.suffix == ".onnx":
            session = onnx_session(path)
            text = session.get_modelmeta().custom_metadata_map.get(FACTS, "")
            return _facts(text), partial(_run_session, session)
        graph = openvino_core().read_model(path)
        facts = _facts(graph.get_rt_info(FACTS).astype(str) if graph.has_rt_info(FACTS) else "")
        return facts, read_openvino(graph, str(facts.get("dtype")))
    except Exception as error:  # ONNX Runtime's have no base of their own
        why = in_brief(" ".join(str(error).split()), 200)
        raise WeightsError(f"{path} cannot be read ({why}); export the model anew") from error


def _facts(text: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = parse_json(text)
        return found if isinstance(found, dict) else {}
    return {}


def read_openvino(graph: Any, dtype: str) -> Compute:
    """Clips -> answers by a graph of OpenVINO or its file, in `dtype` where the processor can."""
    core = openvino_core()
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    half = dtype == "bfloat16" or (dtype == "int8" and native)
    compiled = core.compile_model(
        graph,
        "CPU",
        {
            # Said out loud, because OpenVINO takes bfloat16 by itself wherever there is any.
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": num_threads(),
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


def read_onnx(path: Path, *, optimize: bool = True) -> Compute:
    """Clips -> answers by a graph of ONNX."""
    return partial(_run_session, onnx_session(path, optimize=optimize))


def _run_session(session: Any, pixels: Floats) -> Floats:
    answer: Floats = session.run(None, {INPUT: pixels})[0]
    return answer


def onnx_session(path: Path, *, save_to: Path | None = None, optimize: bool = True) -> Any:
    """A session of a graph that is optimised for this machine, and saved as such to `save_to`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it warns that the result suits this machine alone: it shall
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{save_to.name}.data"
        )
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
