"""Classify a video with an exported model, without this package: run_onnx.py MODEL.onnx VIDEO.

Needs onnxruntime, numpy and PyAV; the model is what `videomae export MODEL --format onnx` wrote.
"""

import json
import sys

import av
import numpy as np
import onnxruntime


def resizing(old: int, new: int) -> np.ndarray:
    """The bilinear filter along one axis, widened where it becomes shorter: (new, old)."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    near = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old)) / max(old / new, 1))
    return near / near.sum(axis=1, keepdims=True)


if len(sys.argv) != 3:
    sys.exit(__doc__)
session = onnxruntime.InferenceSession(sys.argv[1])
facts = json.loads(session.get_modelmeta().custom_metadata_map["videomae"])
with av.open(sys.argv[2]) as video:
    frames = list(video.decode(video=0))
if facts["fps"]:  # of each tick the nearest frame
    times = np.array([frame.time - frames[0].time for frame in frames])
    ticks = np.arange(int(times[-1] * facts["fps"] + 0.1) + 1) / facts["fps"]
    frames = [frames[np.abs(times - tick).argmin()] for tick in ticks]
n, count, stride = len(frames), facts["num_frames"], facts["frame_stride"]
start = max(0, n - (count - 1) * (stride or 0) - 1) // 2
dense, spread = (lambda k: min(start + k * stride, n - 1)), (lambda k: int(n * (k + 0.5) / count))
chosen = [frames[(dense if stride else spread)(k)].to_ndarray(format="rgb24") for k in range(count)]
(high, wide), edge = chosen[0].shape[:2], facts["resize"]["shortest_edge"]
rows, columns = (resizing(side, edge * side // min(high, wide)) for side in (high, wide))
pixels = np.stack(
    [np.einsum("ai,ijc,bj->abc", rows, frame, columns, optimize=True) for frame in chosen]
)
top, left = ((a - b) // 2 for a, b in zip(pixels.shape[1:3], facts["crop"], strict=True))
pixels = pixels[:, top : top + facts["crop"][0], left : left + facts["crop"][1]].round()
pixels = (pixels * facts["scale"] - facts["mean"]) / facts["std"]
clip = pixels.transpose(0, 3, 1, 2)[None].astype(np.float32)  # (1, T, C, H, W)
[logits] = session.run(None, {"pixel_values": clip})
scores = np.exp(logits[0] - logits[0].max())
for best in scores.argsort()[::-1][:5]:
    print(f"{scores[best] / scores.sum():7.2%}  {facts['labels'][best]}")
