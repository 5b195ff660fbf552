"""A run on disk: where it stands, to go on as if it had never stopped, and the finished model."""

import dataclasses
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.optim.swa_utils import AveragedModel

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, WeightsError
from videomae.hub import atomic_path, write_text
from videomae.model.modeling import VideoMAEPreTrainedModel
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.processing.views import find_processor
from videomae.recipe import SETTINGS_NAME, load_recipe
from videomae.settings import TrainSettings
from videomae.training.estimate import gigabytes
from videomae.weights.checks import check_records
from videomae.weights.keys import some

# What may differ when a run goes on: once it has begun, none of these changes what a step computes.
_FREE_TO_CHANGE = frozenset(
    {
        "resume", "output", "num_workers", "cache_gb", "cache_dir", "max_bad_fraction",
        "log_every_steps", "save_every_steps", "keep_checkpoints", "tracker", "draw_every_epochs",
        "keep_every_epochs", "eval_every_epochs", "eval_data", "device", "init", "head_init",
        "head_scale", "max_nonfinite_steps", "parallel", "compile", "activation_checkpointing",
        "accumulate",
    }
)  # fmt: skip
# These decide how a run begins, and so may differ only where it has begun.
_BEGINNINGS = frozenset({"init", "head_init", "head_scale"})
# These change what is computed; a run that no longer learns cannot go on without.
_RESCUES = frozenset({"lr", "min_lr", "clip_grad", "dtype"})
_STEP = re.compile(r"step_(\d+)\.pt")
# The whole state on the CPU of each process, whatever it was split over: a run can go on with
# another number of processes.
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def checkpoint_paths(output: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = (Path(output) / "checkpoints").glob("step_*.pt")
    return sorted(path for path in found if _STEP.fullmatch(path.name))


def save_checkpoint(
    settings: TrainSettings,
    machine: Machine,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: AveragedModel | None,
    step: int,
    seen: Mapping[str, Any],
) -> None:
    """Write weights, optimiser and step, then remove all but the last few checkpoints.

    All processes take part, the first one writes. The file is whole or not there at all; no older
    one is removed before it is. There is no random state to save: each step seeds its own.
    seen: plain counts and lists that go on with the run.
    """
    model_state, optimizer_state = get_state_dict(network, optimizer, options=_WHOLE)
    if machine.is_main:
        folder = Path(settings.output) / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        lasting = {k: v for k, v in _comparable(settings).items() if k not in _FREE_TO_CHANGE}
        state = {
            "step": step,
            "model": model_state,
            "optimizer": optimizer_state,
            "settings": lasting,
            "seen": dict(seen),
            **({"ema": ema.module.state_dict()} if ema else {}),
        }
        path = folder / f"step_{step:08d}.pt"
        # An open file, not its name: else torch does not say why it could not be written.
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
        for old in checkpoint_paths(settings.output)[: -settings.keep_checkpoints]:
            if old != path:  # a damaged one may be of a later step
                old.unlink()
    machine.wait()


def load_checkpoint(
    settings: TrainSettings,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: AveragedModel | None,
) -> tuple[int, dict[str, Any]]:
    """Take up a run where `save_checkpoint` left it: the steps done, and what was `seen` in them.

    A checkpoint that cannot be used gives way, with a warning, to the one before: a file that
    cannot be read, that is not what was written (its checksums differ), or that is another's.
    Raises WeightsError where none can be used, and ConfigError where a setting that changes the
    result is not the one the run began with. Where nothing is saved, no step is done.
    """
    if not checkpoint_paths(settings.output):
        check_begun(settings)
        return 0, {}
    own_model, own_optimizer = get_state_dict(network, optimizer)  # of each process its pieces
    means = {"ema": ema.module.state_dict()} if ema else {}
    own = {"model": own_model, "optimizer": own_optimizer, **means}
    state = _last_checkpoint(settings, _shapes(own))
    set_state_dict(
        network,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=_WHOLE,
    )
    if ema:
        ema.module.load_state_dict(state["ema"])
    return int(state["step"]), state.get("seen", {})  # earlier versions saved none


def _last_checkpoint(
    settings: TrainSettings, expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """The last checkpoint that can be used."""
    reasons: list[str] = []
    for path in reversed(checkpoint_paths(settings.output)):
        if reasons:
            warnings.warn(f"{reasons[-1]}; going on from {path}", stacklevel=3)
        try:
            check_records(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
            held = _shapes(state)
        except Exception as error:  # of a damaged file, torch raises all kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            reasons.append(reason if str(path) in reason else f"{path} cannot be read: {reason}")
            continue
        found = state if isinstance(state, dict) else {}
        kinds = {"step": int, "settings": dict}
        wrong = [key for key, kind in kinds.items() if not isinstance(found.get(key), kind)]
        if "settings" not in wrong:
            _check_settings(settings, found["settings"], _FREE_TO_CHANGE)
        # torch's own check passes over tensors that are lost
        names = sorted(expected.keys() | held.keys())
        wrong += [name for name in names if held.get(name) != expected.get(name)]
        if not wrong:
            return found
        reasons.append(f"{path} is no checkpoint of this run: missing or another is {some(wrong)}")
    raise WeightsError(
        f"{'; '.join(reasons)}; none is left to go on from: begin in another --output, with "
        f"--init {Path(settings.output) / 'model'} if a model is there, or remove "
        f"{Path(settings.output) / 'checkpoints'} to begin anew in this one"
    )


def check_begun(settings: TrainSettings) -> None:
    """ConfigError where the folder has a run without checkpoints that began with other settings."""
    path = Path(settings.output) / SETTINGS_NAME
    if path.is_file():
        before = _comparable(load_recipe(path, type(settings)))
        _check_settings(settings, before, _FREE_TO_CHANGE - _BEGINNINGS)


def _check_settings(
    settings: TrainSettings, before: Mapping[str, Any], free: frozenset[str]
) -> None:
    # A setting that an earlier version did not have changes nothing where it has its default.
    before, now = _comparable(type(settings)()) | dict(before), _comparable(settings)
    changed = {
        key: f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted((before.keys() | now.keys()) - free)
        if before.get(key) != now.get(key)
    }
    if changed.keys() - _RESCUES:
        raise ConfigError(
            f"cannot resume {settings.output}: {'; '.join(changed.values())}; "
            "use the first settings (settings.toml there), or begin in another folder"
        )
    if changed:
        warnings.warn(f"going on with other settings: {'; '.join(changed.values())}", stacklevel=2)


def _shapes(state: Any, name: str = "") -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in nested dicts, by the keys that lead to it."""
    if isinstance(state, Tensor):
        return {name: tuple(state.shape)}
    items = state.items() if isinstance(state, dict) else ()
    inside = (_shapes(value, f"{name}.{key}".strip(".")) for key, value in items)
    return {key: shape for each in inside for key, shape in each.items()}


def checkpoint_bytes(model: nn.Module, ema: AveragedModel | None) -> int:
    """The size of a checkpoint: weights, two moments of AdamW, and running means."""
    parameters: list[Tensor] = list(model.parameters())
    means = 1 if ema else 0
    return sum(4 * p.numel() * (means + (3 if p.requires_grad else 1)) for p in parameters)


def check_room(settings: TrainSettings, each: int) -> None:
    """ConfigError where no room is left for checkpoints of so many bytes, before work is lost."""
    kept = checkpoint_paths(settings.output)[-settings.keep_checkpoints :]
    # one more file while the new one is written
    needed = each * (settings.keep_checkpoints + 1) - sum(path.stat().st_size for path in kept)
    free = free_bytes(settings.output)
    if free < needed:
        raise ConfigError(
            f"the checkpoints of this run need {gigabytes(needed)} and {settings.output} has "
            f"{gigabytes(free)} free; make room, choose another output, or lower "
            f"keep_checkpoints={settings.keep_checkpoints}"
        )


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which need not be there yet."""
    folder = Path(folder).absolute()
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free


def is_finished(settings: TrainSettings, step: int, num_steps: int, *others: str) -> bool:
    """Whether a run that goes on has nothing left to do: all steps, the model, and other files."""
    output = Path(settings.output)
    # The card of a model is written last.
    files = ("model/*.safetensors", "model/README.md", *others)
    return settings.resume and step == num_steps and all(any(output.glob(n)) for n in files)


def _comparable(settings: TrainSettings) -> dict[str, Any]:
    values = dataclasses.asdict(settings)
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def run_processor(settings: TrainSettings, config: VideoMAEConfig) -> VideoMAEImageProcessor:
    """The processor of a run: that of `settings.init`, its size the model's; else the default."""
    stored, fitting = find_processor(settings.init, config), find_processor(None, config)
    if (stored.crop_size if stored.do_center_crop else stored.size) == fitting.crop_size:
        return stored
    return dataclasses.replace(
        stored, do_resize=True, size=fitting.size, do_center_crop=True, crop_size=fitting.crop_size
    )


def save_model(
    model: VideoMAEPreTrainedModel,
    processor: VideoMAEImageProcessor,
    machine: Machine,
    folder: Path,
    card: str,
) -> Path:
    """Write a finished model with the processor it was trained with and its model card.

    All processes take part, as each may hold a piece of the model; the first one writes. The
    processor is written for images and for videos, as transformers has them. Returns `folder`.
    """
    state: Any = get_model_state_dict(model, options=_WHOLE)
    if machine.is_main:
        with torch.device("meta"):
            whole = type(model)(model.config)
        whole.load_state_dict(state, assign=True, strict=True)
        whole.eval().save_pretrained(folder)
        processor.save_pretrained(folder)
        VideoMAEVideoProcessor.from_dict(processor.to_dict()).save_pretrained(folder)
        write_text(folder / "README.md", card)
    machine.wait()
    return folder
