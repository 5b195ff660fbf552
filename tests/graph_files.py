"""A graph that is made at once: the mean colours of clips (2 frames of 8 x 8) times a matrix."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.array([[1, 0], [0, 2], [3, 0]], np.float32)  # (C, K)
LABELS = ["red or blue", "green"]
CONFIG: dict[str, Any] = {
    "image_size": 8,
    "patch_size": 8,
    "num_frames": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "id2label": dict(enumerate(LABELS)),
    "frame_stride": 3,
}
FACTS: dict[str, Any] = {
    "task": "classify",
    "dtype": "float32",
    "input": {"shape": ["batch", 2, 3, 8, 8]},
    "output": {"activation": "softmax"},
    "labels": LABELS,
    "features": None,
    "frame_stride": 3,
    "fps": None,
    "resize": {"shortest_edge": 8},
    "resample": "bilinear",
    "crop": [8, 8],
    "scale": 1 / 255,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25],
}


def write_graph(path: Path, facts: dict[str, Any] | None = None, weights: Any = WEIGHTS) -> Path:
    """Write it as ONNX, with what is said of it."""
    axes = numpy_helper.from_array(np.array([1, 3, 4]), "axes")
    matrix = numpy_helper.from_array(np.asarray(weights, np.float32), "matrix")
    shape = ["batch", 2, 3, 8, 8]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["pixel_values", "axes"], ["means"], keepdims=0),
            helper.make_node("MatMul", ["means", "matrix"], ["logits"]),
        ],
        "means",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [axes, matrix],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if facts is not None:
        helper.set_model_props(model, {"videomae": json.dumps(facts)})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
