"""How a run begins and ends: which model it starts from, and the folder that it leaves."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.model.modeling import VideoMAEPreTrainedModel
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.processing.views import find_processor
from videomae.settings import TrainSettings


def sizes_of(settings: TrainSettings) -> dict[str, Any]:
    """The config fields that the settings name; the others stay the preset's or checkpoint's."""
    names = ("image_size", "num_frames", "frame_stride")
    found = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    if found.get("frame_stride") == "uniform":
        found["frame_stride"] = None
    return found


def run_processor(settings: TrainSettings, config: VideoMAEConfig) -> VideoMAEImageProcessor:
    """The processor of a run: that of `settings.init`, its size the model's; else the default."""
    stored, fitting = find_processor(settings.init, config), find_processor(None, config)
    if (stored.crop_size if stored.do_center_crop else stored.size) == fitting.crop_size:
        return stored
    return dataclasses.replace(
        stored,
        do_resize=True,
        size=fitting.size,
        do_center_crop=True,
        crop_size=fitting.crop_size,
    )


def whole_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """All weights of a model that may lie split over processes; all of them take part."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found: Any = get_model_state_dict(network, options=options)
    return dict(found)


def save_model(
    model: VideoMAEPreTrainedModel,
    processor: VideoMAEImageProcessor,
    machine: Machine,
    folder: Path,
    card: str,
) -> Path:
    """Write a finished model with the processor it was trained with and its model card.

    The processor is written for images and for videos, as transformers has them. Returns `folder`.
    """
    state = whole_weights(model)
    if machine.is_main:
        kind = type(model)
        with torch.device("meta"):
            whole = kind(model.config)
        whole.load_state_dict(state, assign=True, strict=True)
        whole.eval().save_pretrained(folder)
        processor.save_pretrained(folder)
        VideoMAEVideoProcessor.from_dict(processor.to_dict()).save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
    machine.wait()
    return folder
