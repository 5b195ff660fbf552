"""`videomae convert`: weights of any known format -> a transformers folder, or a V1 .pth file."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae import hub
from videomae.commands.flags import Convert
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from videomae.processing.views import find_processor
from videomae.weights.checkpoint import Checkpoint, read_checkpoint, save_pth
from videomae.weights.keys import to_v1
from videomae.weights.matching import LoadReport

_PROCESSOR_NAME = "preprocessor_config.json"


@dataclass(frozen=True)
class Conversion:
    """The files that were written, and what became of each tensor."""

    path: Path
    model_class: str
    config: VideoMAEConfig
    report: LoadReport

    def __str__(self) -> str:
        return f"{self.report}\nwrote {self.path}, a {self.model_class}"


def convert(command: Convert) -> Conversion:
    """Convert weights, tensor by tensor without loss, in the dtype they have.

    `to="hf"` writes a folder that transformers opens: config.json, model.safetensors, and
    preprocessor_config.json (the source's own, or one that does what training did). `to="v1"`
    writes a .pth with the keys of the original code. The class of the model follows from its
    tensors: with a decoder a VideoMAEForPreTraining, with a pooled norm or a head a
    VideoMAEForVideoClassification (which without a head returns the pooled features), else a
    VideoMAEModel. An image MAE becomes an encoder of videos that is yet to be trained on them.

    Raises WeightsError and ConfigError as `from_pretrained` does, before anything is written.

    ```python
    convert(Convert("vit_b_k710_dl_from_giant.pth", Path("vit-b-k710")))  # a folder
    convert(Convert("MCG-NJU/videomae-base", Path("base.pth"), to="v1"))
    ```
    """
    source, to = command.source, command.to
    destination = hub.local_path(command.destination)
    if to == "hf" and destination.is_file():
        raise ConfigError(f"{destination} is a file; to='hf' writes a folder, name one")
    if to == "v1" and destination.suffix not in (".pth", ".pt"):
        raise ConfigError(f"{destination} must end in .pth, for to='v1' writes one such file")
    checkpoint = read_checkpoint(source, revision=command.revision)
    model, report = _load(checkpoint, command)
    if to == "hf":
        model.save_pretrained(destination)
        own = None
        if not checkpoint.of_images and not hub.local_path(source).is_file():
            own = hub.find(source, _PROCESSOR_NAME, revision=command.revision)
        target = destination / _PROCESSOR_NAME
        if own is None:
            find_processor(None, model.config).save_pretrained(destination)
        elif own.resolve() != target.resolve():
            with hub.atomic_path(target) as temporary:
                shutil.copyfile(own, temporary)
    else:
        grid = model.config.grid
        if model.config.position_grid not in (None, grid):
            raise ConfigError(
                f"{source} has positions resized to {tuple(grid)} tubelets, which the original "
                "code cannot do; convert the checkpoint it was made from"
            )
        prefix = model.checkpoint_prefix
        save_pth(destination, to_v1({prefix + k: v for k, v in model.state_dict().items()}))
    return Conversion(destination, type(model).__name__, model.config, report)


def _load(checkpoint: Checkpoint, command: Convert) -> Any:
    """The model a checkpoint is, and the report of loading it."""
    names = ("config", "num_attention_heads", "decoder_num_attention_heads")
    arguments = {name: getattr(command, name) for name in names if getattr(command, name)}
    kind: Any = VideoMAEModel
    if checkpoint.has_decoder:
        kind = VideoMAEForPreTraining
    elif checkpoint.has_classifier or "fc_norm.weight" in checkpoint.state:
        kind = VideoMAEForVideoClassification
        if not checkpoint.has_classifier:
            arguments["num_labels"] = 0
    return kind.from_pretrained(checkpoint, dtype="auto", output_loading_info=True, **arguments)
