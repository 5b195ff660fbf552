"""`videomae export`: a model as a file that runs without this package, checked, then kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from videomae.commands.flags import Export
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, counted, to_json
from videomae.hub import atomic_folder, check_writable, resolve_shipped
from videomae.inference import engines, formats, runtimes
from videomae.inference.exported import Answer, Features
from videomae.inference.runtimes import Compute, check_packages
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing import sampling
from videomae.processing.stored import RESAMPLE
from videomae.processing.views import ViewMaker, find_processor
from videomae.rendering.actions import CLASSES, render_clip
from videomae.report.card import origin
from videomae.report.html import render
from videomae.version import __version__
from videomae.video.folder import find_videos
from videomae.weights.checkpoint import read_checkpoint

# Per format: its file, the precisions, the first by default, and the entry of `NEEDS`.
FORMATS: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "onnx": ("model.onnx", ("float32", "float16", "int8"), "onnxruntime"),
    "openvino": ("model.xml", ("float32", "float16", "int8"), "openvino"),
    "torch-export": ("model.pt2", ("float32", "bfloat16", "float16"), None),
    "executorch": ("model.pte", ("float32", "int8"), "executorch"),
    "web": ("model.onnx", ("int8", "float32"), "onnxruntime"),
}
# How far answers may lie from those of torch in float32: the length of the difference, as a share
# of the length of the answers. Measured was about a quarter at most (benchmarks/formats.md).
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2, "int8": 0.1}
# The least share of clips whose first label int8 must leave as it is.
MIN_AGREEMENT = 0.9
_RENDERED_SEED = 70_000  # other clips than those of training and evaluation
_ORT_WEB = "1.30.0"  # the release of onnxruntime-web that the page was tested with


@dataclass(frozen=True)
class Parity:
    """How answers of a file compare with those of torch in float32, on the same clips.

    error: the length of the difference as a share of that of the answers. agreement: the share of
    clips with the same first label, and score_difference: the most that a score changed, in 0..1;
    None where answers are not scores of labels.
    """

    num_clips: int
    error: float
    agreement: float | None = None
    score_difference: float | None = None

    def __str__(self) -> str:
        text = f"answers within {self.error:.1e} of torch's in float32"
        if self.agreement is None or self.score_difference is None:
            return text
        same = round(self.agreement * self.num_clips)
        return (
            f"{text}, the same first label for {same} of {self.num_clips}, scores within "
            f"{100 * self.score_difference:.2g} points of 100"
        )


@dataclass(frozen=True)
class Written:
    """What was written: the folder, the model's file in it, its facts, and how it compares."""

    folder: Path
    file: Path
    facts: dict[str, Any]
    parity: Parity
    clips: str

    def __str__(self) -> str:
        size = sum(path.stat().st_size for path in self.folder.glob("model.*"))
        opset = f", opset {self.facts['opset']}" if "opset" in self.facts else ""
        batch = self.facts["input"]["shape"][0]
        at_once = "any number of clips at once" if batch == "batch" else "one clip at a time"
        return (
            f"wrote {self.file}: {size / 1e6:.1f} MB, {self.facts['dtype']}{opset}, {at_once}\n"
            f"checked on {self.parity.num_clips} {self.clips}: {self.parity}; an error of the "
            f"answers of at most {TOLERANCES[self.facts['dtype']]:g} was allowed\n"
            f"how to run it: {self.folder / 'README.md'}"
        )


def export(command: Export) -> Written:
    """Write a model in another format, once the file has given the answers of torch.

    A classifier answers with logits (B, K); an encoder, or any model with task="embed", with the
    features that `embed` gives. The folder is written whole or not at all. Raises ConfigError for
    what does not go together, a folder that is there, a missing extra, and answers that lie too far
    from torch's; else what loading a model and reading videos raise.
    """
    name, dtypes, needs = FORMATS[command.format]
    dtype = dtypes[0] if command.dtype == "auto" else command.dtype
    if dtype not in dtypes:
        raise ConfigError(
            f"format={command.format} cannot be written in dtype={dtype}; use {', '.join(dtypes)}"
        )
    if command.opset not in formats.OPSETS:
        low, high = formats.OPSETS[0], formats.OPSETS[-1]
        raise ConfigError(f"opset={command.opset} is not one of {low} to {high}; leave it out")
    if needs:
        both = "int8" if dtype == "int8" and command.format == "openvino" else needs
        check_packages(both, f"format={command.format} needs", "take another format")
    if command.output.exists():
        raise ConfigError(f"output={command.output} is there already; name a folder that is new")
    if command.output.suffix in {Path(file).suffix for file, *_ in FORMATS.values()}:
        raise ConfigError(f"output={command.output}: a folder is written; leave out the suffix")
    check_writable(command.output.parent)

    module, config = _load(command)
    shows_labels = isinstance(module, Answer) and config.num_channels == 3
    if command.format == "web" and not shows_labels:
        raise ConfigError(
            f"format=web is a page that shows the labels of RGB clips, and {command.model} gives "
            f"{'labels' if isinstance(module, Answer) else 'features'} of "
            f"{counted(config.num_channels, 'channel')}; take format=onnx"
        )
    make_views = ViewMaker(config, find_processor(command.model, config))
    calibration, clips, kind = _clips(command, make_views, needed=dtype == "int8")
    with torch.inference_mode(False), torch.no_grad():
        expected = torch.cat([module(clip[None]) for clip in clips])
    facts = describe(command, dtype, make_views, is_classifier=isinstance(module, Answer))
    facts["output"]["shape"] += expected.shape[1:]
    with atomic_folder(command.output) as folder:
        compute = _write(module, folder / name, config, command, dtype, calibration, facts)
        parity = compare(compute, clips, expected, facts)
        _check(parity, dtype)
        written = Written(command.output, command.output / name, facts, parity, kind)
        _write_texts(folder, command, facts, written)
    return written


def _load(command: Export) -> tuple[nn.Module, VideoMAEConfig]:
    """The module to write, in float32 on the CPU, and its config."""
    options: dict[str, Any] = {"engine": "torch", "dtype": "float32", "device": "cpu"}
    task = command.task
    if task == "auto":
        task = "classify" if read_checkpoint(command.model).has_classifier else "embed"
    if task == "classify":
        kind = VideoMAEForVideoClassification
        model = engines.load(command.model, model_class=kind, **options).model
        return Answer(model), model.config
    model = engines.load(command.model, tokens=True, **options).model
    return Features(model, command.features), model.config


def _clips(
    command: Export, make_views: ViewMaker, *, needed: bool
) -> tuple[list[Tensor], list[Tensor], str]:
    """Clips (T, C, H, W) that set the ranges of int8, others to check by, and words for these."""
    if min(command.check_clips, command.calibration_clips) < 1:
        raise ConfigError(
            f"check_clips={command.check_clips}, calibration_clips={command.calibration_clips}: "
            "both must be at least 1"
        )
    if command.calibration is not None:
        videos = find_videos(command.calibration)
        if len(videos) < 2:
            raise ConfigError(
                f"calibration={command.calibration} is not a folder of at least 2 videos: one to "
                "set the ranges of int8, and one to check by"
            )
        step = max(len(videos) // command.check_clips, 4 if len(videos) >= 4 else 2)
        chosen = videos[::step][: command.check_clips]
        others = [path for path in videos if path not in chosen]
        spread = max(len(others) // command.calibration_clips, 1)
        used = others[::spread][: command.calibration_clips] if needed else []
        return _read(make_views, used), _read(make_views, chosen), f"of {len(videos)} videos"
    shipped = resolve_shipped(command.model) is not None
    if needed and not shipped and command.format in ("openvino", "executorch"):
        raise ConfigError(
            f"format={command.format} in int8 sets its ranges by videos of the kind that the model "
            "will see; name a folder of 20 to 200 of them: calibration=FOLDER"
        )
    total = command.check_clips + (command.calibration_clips if needed else 0)
    config = make_views.config
    size = 64 if shipped else min(config.image_hw)
    length = max(32, sampling.clip_span(config.num_frames, config.frame_stride or 1))
    rendered = [
        make_views(
            render_clip(
                CLASSES[k % len(CLASSES)], seed=_RENDERED_SEED + k, size=size, num_frames=length
            )
        )[0]
        for k in range(total)
    ]
    return rendered[command.check_clips :], rendered[: command.check_clips], "rendered clips"


def _read(make_views: ViewMaker, videos: Sequence[Path]) -> list[Tensor]:
    return [make_views(path)[0] for path in videos]


def describe(
    command: Export, dtype: str, make_views: ViewMaker, *, is_classifier: bool
) -> dict[str, Any]:
    """All that a program must know to run the file: sampling, pixels, input, output, labels."""
    config, processor = make_views.config, make_views.processor
    name, licence, _ = origin(command.model)
    height, width = config.image_hw
    batch = 1 if command.format == "executorch" else "batch"
    resample = {number: word for word, number in RESAMPLE.items()}
    activation = {"regression": None, "multi_label_classification": "sigmoid"}

    def per_channel(values: float | Sequence[float]) -> list[float]:
        return [float(each) for each in np.broadcast_to(values, config.num_channels)]

    facts: dict[str, Any] = {
        "model": name,
        "task": "classify" if is_classifier else "embed",
        "made_with": f"videomae {__version__}",
        "licence": licence,
        "dtype": dtype,
        "input": {
            "name": runtimes.INPUT,
            "shape": [batch, config.num_frames, config.num_channels, height, width],
            "axes": ["clip", "frame", "channel", "row", "column"],
            "dtype": "float32",
        },
        "output": {
            "name": "logits" if is_classifier else "features",
            "shape": [batch],
            "activation": activation.get(config.problem_type or "", "softmax")
            if is_classifier
            else None,
        },
        "labels": list((config.id2label or {}).values()) if is_classifier else [],
        "features": None if is_classifier else command.features,
        "num_frames": config.num_frames,
        "frame_stride": config.frame_stride,
        "fps": config.fps,
        "resize": dict(processor.size) if processor.do_resize else None,
        "resample": resample[processor.resample],
        "crop": [processor.crop_size["height"], processor.crop_size["width"]]
        if processor.do_center_crop
        else None,
        "scale": processor.rescale_factor if processor.do_rescale else 1.0,
        "mean": per_channel(processor.image_mean if processor.do_normalize else 0.0),
        "std": per_channel(processor.image_std if processor.do_normalize else 1.0),
    }
    facts["rules"] = render("export/rules.txt.jinja", facts=facts).splitlines()
    if FORMATS[command.format][0].endswith(".onnx"):
        facts["opset"] = command.opset
    return facts


def _write(
    module: nn.Module,
    path: Path,
    config: VideoMAEConfig,
    command: Export,
    dtype: str,
    calibration: list[Tensor],
    facts: dict[str, Any],
) -> Compute:
    """Write the file, and read it back as a function of clips."""
    shape = (config.num_frames, config.num_channels, *config.image_hw)
    ranges, text = calibration if dtype == "int8" else [], to_json(facts)
    if command.format == "openvino":
        half = dtype == "float16"
        formats.write_openvino(module, path, shape, clips=ranges, half=half, facts=text)
        return runtimes.read_openvino(path, dtype)
    if command.format == "executorch":
        formats.write_executorch(module, path, shape, clips=ranges, facts=text)
        return formats.read_executorch(path)
    program = formats.trace(module, shape, dtype=dtype)
    if command.format == "torch-export":
        formats.write_torch(program, path, text)
        return formats.read_torch(path)
    output = facts["output"]["name"]
    plain = path.with_name("plain.onnx") if dtype == "int8" else path
    formats.write_onnx(program, plain, output=output, opset=command.opset, facts=text)
    if dtype == "int8":
        formats.quantize_onnx(plain, path)
        for each in path.parent.glob("plain.*"):
            each.unlink()
    return runtimes.read_onnx(path)


def compare(
    compute: Compute, clips: Sequence[Tensor], expected: Tensor, facts: dict[str, Any]
) -> Parity:
    """Compare answers to clips, one by one and where it can several at once, with torch's."""
    alone = torch.cat([torch.from_numpy(compute(clip[None].numpy())) for clip in clips])
    answers = [(alone, expected)]
    if facts["input"]["shape"][0] == "batch" and len(clips) > 1:
        some = torch.stack(list(clips[:3]))
        answers.append((torch.from_numpy(compute(some.numpy())), expected[: len(some)]))
    # max() of Python would pass over what is no number.
    error = float(torch.stack([(a - b).norm() / b.norm() for a, b in answers]).max())
    activation = facts["output"]["activation"]
    if activation is None:
        return Parity(len(clips), error)
    same = (alone.argmax(-1) == expected.argmax(-1)).float().mean()
    if activation == "softmax":
        alone, expected = alone.softmax(-1), expected.softmax(-1)
    else:
        alone, expected = alone.sigmoid(), expected.sigmoid()
    difference = (alone - expected).abs().max()
    return Parity(len(clips), error, float(same), float(difference))


def _check(parity: Parity, dtype: str) -> None:
    """Raise ConfigError where a file answers otherwise than torch, so that it is not kept."""
    limit, same = TOLERANCES[dtype], parity.agreement
    if not parity.error <= limit:  # nor where it is no number
        reason = f"its answers are {parity.error:.1e} off torch's, {limit:g} is allowed"
    elif dtype == "int8" and same is not None and same < MIN_AGREEMENT:
        reason = (
            f"its first label is torch's for {same:.0%} of the clips, {MIN_AGREEMENT:.0%} needed"
        )
    else:
        return
    advice = {
        "int8": "name more videos of the model's own kind with calibration=, or use float32",
        "float32": "this is a fault of ours or of the format's; take another format",
    }.get(dtype, "use dtype=float32")
    raise ConfigError(f"in {dtype} {reason}; the file was not kept: {advice}")


def _write_texts(folder: Path, command: Export, facts: dict[str, Any], written: Written) -> None:
    """Write README.md, and for the web the page that runs the model."""
    values = {"facts": facts, "name": written.file.name, "format": command.format}
    text = render("export/README.md.jinja", parity=written.parity, clips=written.clips, **values)
    (folder / "README.md").write_text(text, encoding="utf-8")
    if command.format != "web":
        return
    title = f"{facts['model']} in a browser"
    for file in ("index.html", "page.js", "package.json"):
        text = render(f"export/{file}", facts=facts, title=title, ort=_ORT_WEB)
        (folder / file).write_text(text, encoding="utf-8")
    (folder / "facts.json").write_text(to_json(facts, indent=1), encoding="utf-8")
