"""Files to labels as the documentation of transformers does it; a script too, for one file.

    python benchmarks/compare/transformers_reader.py FOLDER FRAME_STRIDE FILE

PyAV decodes from the beginning to the last frame wanted, those wanted become RGB, and the model
runs in float32 with SDPA. Nothing of videomae is imported.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import transformers


def reader(folder: Path, frame_stride: int) -> Callable[[Path], list[str]]:
    """A function from a file to its five best labels, by the model in a folder."""
    progress: Any = transformers.utils.logging
    progress.disable_progress_bar()
    kind: Any = transformers.VideoMAEForVideoClassification
    model = kind.from_pretrained(folder, attn_implementation="sdpa").eval()
    processor = transformers.VideoMAEImageProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def classify(path: Path) -> list[str]:
        frames = read(path, model.config.num_frames, frame_stride)
        inputs = processor(list(frames), return_tensors="pt")
        scores = model(**inputs).logits.softmax(-1)[0]
        best = scores.topk(min(5, len(scores))).indices.tolist()
        return [model.config.id2label[index] for index in best]

    return classify


def read(path: Path, num_frames: int, frame_stride: int) -> Any:
    """So many frames (T, H, W, 3) out of the middle of a file."""
    with av.open(str(path)) as container:
        total = container.streams.video[0].frames
        start = max(0, (total - (num_frames - 1) * frame_stride - 1) // 2)
        wanted = [min(start + i * frame_stride, total - 1) for i in range(num_frames)]
        found = {}
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found[number] = frame.to_ndarray(format="rgb24")
            if number >= wanted[-1]:
                break
    return np.stack([found[number] for number in wanted])


if __name__ == "__main__":
    print(reader(Path(sys.argv[1]), int(sys.argv[2]))(Path(sys.argv[3])))
