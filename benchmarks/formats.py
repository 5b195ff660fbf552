"""A table of all formats and precisions: how near to torch, how large, and hints of time.

python -m benchmarks.formats actions-tiny small > rows.md; "small" is ViT-S with random weights.
A format whose packages are not installed is left out, with a line on stderr.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch

from videomae.commands.export import FORMATS, export
from videomae.commands.flags import Export
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, complain
from videomae.hub import resolve_shipped
from videomae.inference import formats, runtimes
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.rendering.actions import CLASSES, render_clip
from videomae.video.writer import write_video


def random_model(preset: str, folder: Path) -> Path:
    """A classifier of 400 classes with random weights, whose answers differ from clip to clip."""
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(VideoMAEConfig.preset(preset, num_labels=400))
    torch.nn.init.normal_(cast(torch.nn.Linear, model.classifier).weight, std=0.05)
    model.save_pretrained(folder)
    return folder


def main(names: list[str]) -> None:
    """Print a row per model, format and precision."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for k in range(24):
            clip = render_clip(CLASSES[k % len(CLASSES)], seed=80_000 + k, size=64)
            write_video(folder / "videos" / f"{k}.mp4", clip)
        for name in names:
            shipped = resolve_shipped(name) is not None
            model = name if shipped else str(random_model(name, folder / name))
            for format, (_, dtypes, _) in FORMATS.items():
                for dtype in dtypes if format != "web" else ():
                    asked = Export(
                        model,
                        format=format,  # type: ignore[arg-type]
                        dtype=dtype,  # type: ignore[arg-type]
                        output=folder / f"{name}-{format}-{dtype}",
                        calibration=None if shipped else folder / "videos",
                        calibration_clips=48 if shipped else 6,
                        check_clips=48 if shipped else 6,
                    )
                    try:
                        print(f"| {name} | {row(asked)} |", flush=True)
                    except ConfigError as error:
                        complain(f"left out: {error}")


def row(asked: Export) -> str:
    """Error, agreement, size and time of one file."""
    written = export(asked)
    facts, parity = written.facts, written.parity
    readers: dict[str, Callable[[Path], runtimes.Compute]] = {
        ".onnx": runtimes.read_onnx,
        ".pt2": formats.read_torch,
        ".pte": formats.read_executorch,
        ".xml": lambda path: runtimes.read_openvino(path, facts["dtype"]),
    }
    compute = readers[written.file.suffix](written.file)
    clip = torch.randn(1, *facts["input"]["shape"][1:]).numpy()
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        compute(clip)
        seconds.append(time.perf_counter() - start)
    size = sum(path.stat().st_size for path in written.folder.glob("model.*")) / 1e6
    assert parity.agreement is not None
    assert parity.score_difference is not None
    same = f"{round(parity.agreement * parity.num_clips)} of {parity.num_clips}"
    points = f"{100 * parity.score_difference:.2g}"
    milliseconds = f"{1000 * sorted(seconds[1:])[2]:,.0f}"
    cells = (asked.format, facts["dtype"], f"{parity.error:.1e}", same, points, f"{size:.1f}")
    return " | ".join((*cells, milliseconds))


if __name__ == "__main__":
    main(sys.argv[1:])
