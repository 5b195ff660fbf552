"""`videomae convert`: weights of any known spelling -> a transformers folder, or a V1 .pth file."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from videomae import hub
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
    """What was written where, and what became of each tensor."""

    path: Path
    model_class: str
    config: VideoMAEConfig
    report: LoadReport


def convert(
    source: hub.PathLike,
    destination: hub.PathLike,
    *,
    to: Literal["hf", "v1"] = "hf",
    config: VideoMAEConfig | hub.PathLike | None = None,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int | None = None,
    **where: Any,
) -> Conversion:
    """Convert weights, tensor by tensor without loss, in the dtype they have.

    `to="hf"` writes a folder that transformers opens: config.json, model.safetensors, and
    preprocessor_config.json (the source's own, or one that does what training did). `to="v1"`
    writes a .pth in the spelling of the original code. What the model is follows from its tensors:
    with a decoder a VideoMAEForPreTraining, with a pooled norm or a head a
    VideoMAEForVideoClassification (which without a head returns the pooled features), else a
    VideoMAEModel. An image MAE becomes an encoder of videos that is yet to be trained on them.
    `config` describes a source that does not do so itself; head counts of unpublished widths can be
    given alone. `where` are `hub.fetch`'s arguments.

    Raises WeightsError and ConfigError as `from_pretrained` does, before anything is written.

    ```python
    convert("vit_b_k710_dl_from_giant.pth", "vit-b-k710")     # folder
    convert("MCG-NJU/videomae-base", "base.pth", to="v1")
    ```
    """
    destination = Path(destination).expanduser()
    if to not in ("hf", "v1"):
        raise ConfigError(f"to={to!r} is not a spelling to convert to; use 'hf' or 'v1'")
    if to == "hf" and destination.is_file():
        raise ConfigError(f"{destination} is a file; to='hf' writes a folder, name one")
    if to == "v1" and destination.suffix not in (".pth", ".pt"):
        raise ConfigError(f"{destination} must end in .pth, for to='v1' writes one such file")
    checkpoint = read_checkpoint(source, **where)
    heads = {
        "num_attention_heads": num_attention_heads,
        "decoder_num_attention_heads": decoder_num_attention_heads,
    }
    model, report = _load(checkpoint, config=config, **heads, **where)
    if to == "hf":
        model.save_pretrained(destination)
        beside = None if checkpoint.of_images else source  # that of images is no video processor
        _write_processor(beside, destination, model.config, where)
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


def _load(checkpoint: Checkpoint, **arguments: Any) -> Any:
    """The model a checkpoint is, and the report of loading it."""
    arguments = {key: value for key, value in arguments.items() if value is not None}
    kind: Any = VideoMAEModel
    if checkpoint.has_decoder:
        kind = VideoMAEForPreTraining
    elif checkpoint.has_classifier or checkpoint.has_pooled_norm:
        kind = VideoMAEForVideoClassification
        if not checkpoint.has_classifier:
            arguments["num_labels"] = 0
    return kind.from_pretrained(checkpoint, dtype="auto", output_loading_info=True, **arguments)


def _write_processor(
    source: hub.PathLike | None, folder: Path, config: VideoMAEConfig, where: dict[str, Any]
) -> None:
    """The source's own, or one that does what the published training did."""
    own = None
    if source is not None and not Path(source).expanduser().is_file():
        own = hub.fetch(source, _PROCESSOR_NAME, required=False, **where)
    target = folder / _PROCESSOR_NAME
    if own is None:
        find_processor(None, config).save_pretrained(folder)
    elif own.resolve() != target.resolve():
        with hub.atomic_path(target) as temporary:
            shutil.copyfile(own, temporary)
