"""How a run begins and ends: which model it starts from, and the folder that it leaves."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from videomae.compute.distributed import Machine
from videomae.model.modeling import VideoMAEPreTrainedModel
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.settings import TrainSettings


def sizes_of(settings: TrainSettings) -> dict[str, Any]:
    """The config fields that the settings name; the others stay the preset's or checkpoint's."""
    names = ("image_size", "num_frames", "frame_stride")
    found = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    if found.get("frame_stride") == "uniform":
        found["frame_stride"] = None
    return found


def whole_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """All weights of a model that may lie split over processes; all of them take part."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found: Any = get_model_state_dict(network, options=options)
    return dict(found)


def save_model(model: VideoMAEPreTrainedModel, machine: Machine, folder: Path, card: str) -> Path:
    """Write a finished model with its processors and model card, and return that folder."""
    state = whole_weights(model)
    if machine.is_main:
        kind = type(model)
        with torch.device("meta"):
            whole = kind(model.config)
        whole.load_state_dict(state, assign=True, strict=True)
        whole.eval().save_pretrained(folder)
        height, width = model.config.image_hw
        size = {"shortest_edge": min(height, width)}
        crop = {"height": height, "width": width}
        VideoMAEImageProcessor(size=size, crop_size=crop).save_pretrained(folder)
        VideoMAEVideoProcessor(size=size, crop_size=crop).save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
    machine.wait()
    return folder
