"""How fast models are: forward, in training, and as clips and models grow.

All runs of a table take turns. B clips, T frames, C channels, H, W pixels.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from benchmarks.compare import peers, timing
from benchmarks.compare.timing import Clock, Outcome, Run, Timing, in_ms, ratio
from videomae.compute import devices
from videomae.config import PRESETS, VideoMAEConfig
from videomae.data.motion import MOTIONS, render_clip
from videomae.errors import ConfigError
from videomae.inference import engines
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.processing.views import ViewMaker, find_processor
from videomae.report.plots import plot_curve

# What imports everything before memory is measured, and needs next to none itself.
_SMALL = VideoMAEConfig.preset("tiny", num_hidden_layers=1, num_frames=2, num_labels=2)


@dataclass(frozen=True)
class Asked:
    """What is to be measured, and how."""

    model: str
    config: VideoMAEConfig
    device: torch.device
    dtype: torch.dtype
    batch_sizes: tuple[int, ...]
    repeats: int
    clock: Clock
    video: Path | None
    files: int
    folder: Path  # for files that are made on the way
    tell: Callable[[str], None]  # hears what runs now

    def times(self, runs: Mapping[str, Run]) -> dict[str, dict[str, Timing]]:
        """Let the runs take turns; see `timing.interleaved`."""
        now = timing.stopwatch(self.clock, self.device)
        return timing.interleaved(runs, now, repeats=self.repeats, tell=self.tell)

    def classifier(self) -> VideoMAEForVideoClassification:
        """The model, or a random one of the preset, whose logits are not all near zero."""
        if self.model not in PRESETS:
            return VideoMAEForVideoClassification.from_pretrained(self.model).eval()
        torch.manual_seed(0)
        model = VideoMAEForVideoClassification(self.config).eval()
        assert isinstance(model.classifier, nn.Linear)
        nn.init.normal_(model.classifier.weight, std=0.1)
        return model

    def clips(self, count: int) -> Tensor:
        """Pixel values (count, T, C, H, W) of the video that was given, or of rendered ones."""
        config = self.config
        place = None if self.model in PRESETS else self.model
        maker = ViewMaker(config, find_processor(place, config), num_clips=count)
        if self.video is not None:
            return maker(self.video)
        one = dataclasses.replace(maker, num_clips=1, frame_stride=1)
        size = max(*config.image_hw, 32)
        moving = (
            render_clip(motion, seed=seed, size=size, num_frames=config.num_frames)
            for seed, motion in zip(range(count), itertools.cycle(MOTIONS), strict=False)
        )
        return torch.cat([one(frames) for frames in moving])


def config_of(model: str) -> VideoMAEConfig:
    """The config of a preset, with 400 classes, or of a model by its id or path."""
    if model not in PRESETS:
        return VideoMAEConfig.from_pretrained(model)
    return VideoMAEConfig.preset(model, num_labels=400)


def forward(asked: Asked) -> Outcome:
    """Batches through the classifier: eager and sdpa, ours and theirs, and each engine."""
    outcome = Outcome()
    model = asked.classifier()
    clips = asked.clips(max(asked.batch_sizes))
    calls = _attention_calls(asked, model, clips, outcome)
    calls |= _engine_calls(asked, model, clips, outcome)
    for size in asked.batch_sizes:
        times = asked.times({name: partial(call, clips[:size]) for name, call in calls.items()})
        outcome.figures[f"batch {size}"] = {name: each["total"] for name, each in times.items()}
    _show_attention(asked, outcome)
    columns = (f"batch {size}" for size in asked.batch_sizes)
    best = _best_dtype(asked)
    chosen = f"auto would take {engines.fastest(model.config, asked.device, best)} in {best}"
    table = outcome.sheet(f"all, ms per batch ({asked.clock} time); {chosen}", "", *columns)
    for name in calls:
        table.add(name, *(in_ms(each[name]) for each in outcome.figures.values()))
    _deviations(outcome, model, clips, calls)
    _forward_memory(asked, outcome)
    sizes = asked.batch_sizes
    rows = {
        name: (sizes, [1e3 * outcome.figures[f"batch {n}"][name].median for n in sizes])
        for name in calls
    }
    outcome.charts.append(
        lambda folder: plot_curve(
            rows, folder / "forward.svg", xlabel="batch", ylabel="ms", log_y=True
        )
    )
    return outcome


def _show_attention(asked: Asked, outcome: Outcome) -> None:
    """The table of the documentation of transformers: what SDPA brings over eager attention."""
    compared = "transformers sdpa" in next(iter(outcome.figures.values()))
    columns = ["eager", "sdpa", "ratio"]
    if compared:
        columns += ["transformers eager", "transformers sdpa", "ratio", "transformers / ours, sdpa"]
    title = f"attention, {str(asked.dtype).removeprefix('torch.')}, ms ({asked.clock} time)"
    table = outcome.sheet(title, "batch", *columns)
    for size in asked.batch_sizes:
        times = outcome.figures[f"batch {size}"]
        cells = []
        for who in ("", "transformers ")[: len(columns) // 3]:
            eager, sdpa = times[f"{who}eager"], times[f"{who}sdpa"]
            cells += [in_ms(eager), in_ms(sdpa), ratio(eager, sdpa)]
        if compared:
            cells.append(ratio(times["transformers sdpa"], times["sdpa"]))
        table.add(str(size), *cells)


def _attention_calls(
    asked: Asked, model: VideoMAEForVideoClassification, clips: Tensor, outcome: Outcome
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Ours and transformers' model with each attention, in the device and dtype asked for.

    On a CPU also transformers' by OpenVINO, where that is installed.
    """
    calls: dict[str, Callable[[Tensor], Tensor]] = {}
    for attention in ("eager", "sdpa"):
        config = model.config.copy(attn_implementation=attention)
        ours = VideoMAEForVideoClassification(config).eval()
        ours.load_state_dict(model.state_dict(), assign=True)
        calls[attention] = engines.load(
            ours, engine="torch", dtype=asked.dtype, device=asked.device
        )
    if not peers.is_there("transformers"):
        outcome.lacks("transformers")
        return calls
    for attention in ("eager", "sdpa"):
        twin = peers.transformers_twin(model, attention).to(asked.device, asked.dtype)

        @torch.inference_mode()
        def call(pixels: Tensor, twin: Any = twin) -> Tensor:
            logits: Tensor = twin(pixels.to(asked.device, asked.dtype)).logits
            return logits.float().cpu()

        calls[f"transformers {attention}"] = call
    if asked.device.type == "cpu" and peers.is_there("openvino"):
        twin = peers.transformers_twin(model, "sdpa")
        for dtype in dict.fromkeys(("float32", _best_dtype(asked))):
            converted = peers.transformers_by_openvino(twin, clips[:1], dtype)
            calls[f"transformers by openvino {dtype}"] = converted
    return calls


def _best_dtype(asked: Asked) -> str:
    return str(devices.best_dtype(asked.device)).removeprefix("torch.")


def _engine_calls(
    asked: Asked, model: VideoMAEForVideoClassification, clips: Tensor, outcome: Outcome
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Every engine in every precision that this machine computes in."""
    best = _best_dtype(asked)
    calls: dict[str, Callable[[Tensor], Tensor]] = {}
    for name in engines.ENGINES:
        for dtype in dict.fromkeys(("float32", best, "int8")):
            of_itself = name == "torch" and dtype == "float32"
            if name == "auto" or of_itself or (dtype == "int8" and name != "openvino"):
                continue
            asked.tell(f"loading {name} {dtype}")
            try:
                call = engines.load(
                    model,
                    engine=name,
                    dtype=dtype,
                    device=asked.device,
                    calibration=list(clips) if dtype == "int8" else None,
                    engine_cache_dir=asked.folder / "engines",
                )
                call(clips[:1])
            except ConfigError as error:
                outcome.left_out.append(f"{name} {dtype}: {error}")
                continue
            calls[f"{name} {dtype}"] = call
    return calls


def _deviations(
    outcome: Outcome,
    model: VideoMAEForVideoClassification,
    clips: Tensor,
    calls: Mapping[str, Callable[[Tensor], Tensor]],
) -> None:
    """How far each one's logits lie from those in float32, and how often the best label is kept."""
    with torch.inference_mode():
        exact = model(clips.to(model.device), return_dict=True).logits.float().cpu()
    columns = ("largest error", "largest logit", "same best label")
    table = outcome.sheet(f"logits of {len(clips)} clips, from ours in float32", "", *columns)
    found: dict[str, Any] = {}
    for name, call in calls.items():
        logits = call(clips)
        error, largest = float((logits - exact).abs().max()), float(exact.abs().max())
        same = int((logits.argmax(-1) == exact.argmax(-1)).sum())
        table.add(name, f"{error:.1e}", f"{largest:.2f}", f"{same} of {len(clips)}")
        found[name] = {"largest_error": error, "largest_logit": largest, "same_best": same}
    outcome.figures["deviation"] = found


def _forward_memory(asked: Asked, outcome: Outcome) -> None:
    """What one clip takes by torch: weights and activations, the imports left out."""
    table = outcome.sheet("memory of one clip, SDPA", "", "peak, MB")
    outcome.figures["peak_bytes"] = {}
    for who in ("videomae", "transformers"):
        if who == "transformers" and not peers.is_there(who):
            continue
        asked.tell(f"memory of {who}")
        rest = (asked.device, asked.dtype)
        peak = timing.peak_of(
            peers.forward_run,
            (who, asked.config, *rest),
            warm_up=(who, _SMALL, *rest),
            device=asked.device,
        )
        table.add(who, f"{peak / 1e6:.0f}")
        outcome.figures["peak_bytes"][who] = peak


def train(asked: Asked) -> Outcome:
    """One step of pre-training and one of fine-tuning: ours, transformers', and plain code."""
    outcome = Outcome()
    needs = {"videomae": "accelerate", "transformers": "transformers"}
    for package in needs.values():
        if not peers.is_there(package):
            outcome.lacks(package)
    people: list[peers.Trainer] = [
        who for who in get_args(peers.Trainer) if who not in needs or peers.is_there(needs[who])
    ]
    tasks: dict[peers.Task, int] = {"pretrain": 2, "finetune": 1}
    for task, batch_size in tasks.items():
        rest = (asked.device, asked.dtype)
        runs: dict[str, Run] = {
            who: peers.training_step(who, task, asked.config, batch_size, *rest) for who in people
        }
        times = asked.times(runs)
        del runs
        columns = ("step, ms", "forward", "backward", "optimiser", f"to {people[0]}", "peak, MB")
        about = f"{task}, batch {batch_size}" + (", mask 0.9" if task == "pretrain" else "")
        table = outcome.sheet(f"{about} ({asked.clock} time)", "", *columns)
        figures: dict[str, Any] = {}
        for who, each in times.items():
            asked.tell(f"{task}, memory of {who}")
            peak = timing.peak_of(
                peers.training_step,
                (who, task, asked.config, batch_size, *rest),
                warm_up=(who, task, _SMALL, batch_size, *rest),
                device=asked.device,
            )
            names = ("total", "forward", "backward", "optimiser")
            phases = [in_ms(each[name]) if name in each else "" for name in names]
            against = ratio(each["total"], times[people[0]]["total"])
            table.add(who, *phases, against, f"{peak / 1e6:.0f}")
            figures[who] = {**each, "peak_bytes": peak}
        outcome.figures[task] = figures
    return outcome


def scaling(asked: Asked) -> Outcome:
    """Time and memory of one clip over its frames, its size, and the size of the model."""
    outcome = Outcome()
    config = asked.config
    patch = max(config.patch_hw)
    side = max(config.image_hw)
    sizes = dict.fromkeys(max(patch, round(side * by / patch) * patch) for by in (0.5, 0.7, 1, 1.4))
    series: dict[str, dict[float, VideoMAEConfig]] = {
        "frames": {n: config.copy(num_frames=n) for n in (8, 16, 32, 64)},
        "height and width, px": {n: config.copy(image_size=n) for n in sizes},
    }
    if asked.model in PRESETS and asked.model != "tiny":
        presets = ("small", "base", "large")
        series["width of the model"] = {
            (made := VideoMAEConfig.preset(name)).hidden_size: made for name in presets
        }
    rest = (asked.device, asked.dtype)
    for axis, configs in series.items():
        runs = {str(x): peers.forward_run("videomae", each, *rest) for x, each in configs.items()}
        times = [each["total"] for each in asked.times(runs).values()]
        del runs
        asked.tell(f"memory over {axis}")
        peaks = [
            timing.peak_of(
                peers.forward_run,
                ("videomae", each, *rest),
                warm_up=("videomae", _SMALL, *rest),
                device=asked.device,
            )
            for each in configs.values()
        ]
        _add_series(outcome, asked, axis, configs, times, peaks)
    return outcome


def _add_series(
    outcome: Outcome,
    asked: Asked,
    axis: str,
    configs: Mapping[float, VideoMAEConfig],
    times: Sequence[Timing],
    peaks: Sequence[int],
) -> None:
    xs, medians = list(configs), [each.median for each in times]
    power = {"time": timing.exponent(xs, medians), "memory": timing.exponent(xs, peaks)}
    title = (
        f"one clip over {axis}: time ~ x^{power['time']:.2f}, memory ~ x^{power['memory']:.2f} "
        f"({asked.clock} time)"
    )
    table = outcome.sheet(title, axis, "tubelets", "ms", "peak, MB")
    for (x, config), each, peak in zip(configs.items(), times, peaks, strict=True):
        tokens = config.grid.num_tokens
        table.add(str(x), str(tokens), in_ms(each), f"{peak / 1e6:.0f}")
    outcome.figures[axis] = {
        **{
            str(x): {"seconds": t, "peak_bytes": p}
            for x, t, p in zip(xs, times, peaks, strict=True)
        },
        "exponents": power,
    }
    curve = {"": (xs, [1e3 * each for each in medians])}
    name = f"{axis.split()[0]}.svg"
    outcome.charts.append(
        lambda folder: plot_curve(curve, folder / name, title=title, xlabel=axis, ylabel="ms")
    )
