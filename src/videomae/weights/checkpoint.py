"""Read any published checkpoint safely, describe it by a config, and write checkpoints.

The only file that knows safetensors and pickles. Which tensors a model needs is decided in
`matching.py`.
"""

import argparse
import re
import threading
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.serialization import safe_globals

from videomae import hub
from videomae.config import PRESETS, VideoMAEConfig
from videomae.errors import ConfigError, WeightsError, reason_of
from videomae.weights.checks import check_dense, check_floats, check_records
from videomae.weights.keys import (
    State,
    facts_of,
    of_images,
    our_name,
    rename,
    scheme_of,
    some,
    without_image_parts,
)

SAFETENSORS_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"
_PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file or folder of weights, in our names.

    scheme: the code that wrote it, in words. facts: the config fields that follow from names and
    shapes (head counts never do). config: its config.json in our fields. unexpected: tensors that
    no VideoMAE has, by their names in the file. of_images: an image MAE, its 2-D patches not yet
    inflated. left_out: its tensors that mean nothing here.
    """

    source: str
    scheme: str
    state: State
    facts: dict[str, Any]
    config: dict[str, Any] | None
    unexpected: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    of_images: bool = False
    others: State = field(default_factory=dict, repr=False)  # tensors by other names than ours

    @property
    def has_decoder(self) -> bool:
        return any(key.startswith(("decoder.", "mask_token")) for key in self.state)

    @property
    def has_classifier(self) -> bool:
        return "classifier.weight" in self.state


def read_checkpoint(
    id_or_path: hub.PathLike,
    *,
    use_safetensors: bool | None = None,
    variant: str | None = None,
    **where: Any,
) -> Checkpoint:
    """Read weights under any known names from a hub id, a folder, a shipped name or one file.

    Known are the files of transformers 4 and 5 (whole or sharded), of the original VideoMAE and
    VideoMAE V2 code (pre-training and fine-tuning, all wrappers), of the V2 hub repositories, and
    of MMAction2; and, to start from, image MAEs of transformers and of the original code. Tensors
    are mapped from the file where its format allows. Nothing in a pickle is run. `variant` opens
    model.VARIANT.safetensors. `where` are `hub.fetch`'s arguments.

    Raises WeightsError: nothing found, damaged, not a VideoMAE, a VideoMAE of a kind that was never
    published (cosine attention, learned positions), or an image model with parts of its own.
    """
    path = _find(id_or_path, use_safetensors, variant, **where)
    raw = _read_shards(id_or_path, path, **where) if _is_index(path) else _read_file(path)
    alone = path == hub.local_path(id_or_path)
    source, folder = (path.name, path.parent) if alone else (str(id_or_path), id_or_path)
    described = not alone or path.suffix == ".safetensors"
    config_path = hub.find(folder, "config.json", **where) if described else None
    config = _published_config(config_path, source) if config_path else None
    return checkpoint_of(raw, source=source, config=config)


def checkpoint_of(
    raw: Mapping[str, Tensor], *, source: str, config: dict[str, Any] | None = None
) -> Checkpoint:
    """As `read_checkpoint`, of tensors in memory; `source` is what errors call them."""
    kept, left_out = without_image_parts(raw)
    state, unexpected, notes = rename(kept, source=source)
    check_floats(state, source)
    if unexpected and of_images(state):
        raise WeightsError(
            f"{source} is an image model with {len(unexpected)} tensors that no image MAE has: "
            f"{some(unexpected)}; without them it would be another model, so use a plain ViT as "
            "facebookresearch/mae and transformers' ViTMAE write it"
        )
    return Checkpoint(
        source=source,
        scheme=scheme_of(raw),
        state=state,
        facts=facts_of(state, raw, source=source),
        config=config,
        unexpected=unexpected,
        notes=notes,
        left_out=left_out,
        of_images=of_images(raw),
        others={key: value for key, value in kept.items() if key not in state},
    )


def has_pooled_norm(id_or_path: hub.PathLike) -> bool:
    """Whether a checkpoint has its final norm behind the mean over tokens, as fine-tuned ones do.

    Looks at names alone: the tensors are mapped where the format allows, not read. Raises what
    `read_checkpoint` does.
    """
    path = _find(id_or_path)
    names: Iterable[str] = _weight_map(path) if _is_index(path) else _read_file(path)
    return "fc_norm.weight" in map(our_name, names)


# Files


def _find(
    id_or_path: hub.PathLike,
    use_safetensors: bool | None = None,
    variant: str | None = None,
    **where: Any,
) -> Path:
    """The file of weights, or the index of its shards; safetensors before pickles."""
    path = hub.local_path(id_or_path)
    if path.is_file():
        if where.get("subfolder") or variant:
            raise ConfigError(f"{path} is one file; give its folder, or no subfolder and variant")
        return path
    names = [SAFETENSORS_NAME] if use_safetensors in (True, None) else []
    names += [PICKLE_NAME] if use_safetensors in (False, None) else []
    files = [file for name in names for file in (name, f"{name}.index.json")]
    try:
        return hub.fetch(id_or_path, *(of_variant(file, variant) for file in files), **where)
    except hub.AbsentError as error:
        looked_for = " and ".join(of_variant(name, variant) for name in names)
        raise hub.AbsentError(
            f"{error}; looked for {looked_for}, whole or in shards; a weight file of another name "
            "is opened by its own path"
        ) from error


def of_variant(name: str, variant: str | None) -> str:
    """model.safetensors of variant fp16 is model.fp16.safetensors."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{variant}.{suffix}" if variant else name


def _is_index(path: Path) -> bool:
    return ".index." in path.name and path.suffix == ".json"


def _weight_map(index_path: Path) -> dict[str, str]:
    """Tensor name -> name of the shard that holds it."""
    places = hub.read_json(index_path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise WeightsError(f"{index_path} has no weight_map that names a file for each tensor")
    return places


def _read_shards(id_or_path: hub.PathLike, index_path: Path, **where: Any) -> State:
    places = _weight_map(index_path)
    state: State = {}
    for name in sorted(set(places.values())):
        if not name.endswith((".safetensors", ".bin")):
            raise WeightsError(f"{index_path} lists {name!r}, which is no kind of weight file")
        state.update(_read_file(hub.fetch(id_or_path, name, **where)))
    lost = sorted(set(places) - set(state))
    if lost:
        raise WeightsError(
            f"{index_path} lists {len(lost)} tensors that its files do not hold: {some(lost)}; "
            "files of two saves may be mixed up, get them anew"
        )
    return state


def _read_file(path: Path) -> State:
    """The tensors of one file under the names they have in it."""
    with path.open("rb") as file:
        if file.read(24).startswith(b"version https://git-lfs"):
            raise WeightsError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull`")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except Exception as error:  # a damaged or hostile file may raise anything
            raise WeightsError(
                f"{path} is not a whole safetensors file: {error}; get it anew"
            ) from error
    if path.suffix in _PICKLE_SUFFIXES:
        state = _peel(_read_pickle(path), path)
        check_dense(state, path)
        return state
    raise WeightsError(
        f"{path} is not a weight file; expected .safetensors, {', '.join(_PICKLE_SUFFIXES)}"
    )


def _harmless() -> list[Any]:
    """List what published pickles hold beside tensors: plain data whose making runs no code.

    Paths come out as pure ones, which can be made on any system and cannot touch the disk.
    """
    scalar = np.float64(0).__reduce__()[0]
    modules = ("pathlib", "pathlib._local")  # Python and numpy moved them: files name both places
    return [
        argparse.Namespace,
        np.dtype,
        *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        *((PurePosixPath, f"{module}.PosixPath") for module in modules),
        *((PureWindowsPath, f"{module}.WindowsPath") for module in modules),
    ]


_TORCH_ALLOW_LIST = threading.Lock()  # torch keeps one list for all threads


def _read_pickle(path: Path) -> Any:
    if is_zip := zipfile.is_zipfile(path):
        check_records(path)
    try:
        with _TORCH_ALLOW_LIST, safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # a damaged or hostile file may raise anything
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise WeightsError(
                f"{path} holds {refused[1]}, which is not plain data; nothing in it was run. "
                "Published VideoMAE files do not need it: if you trust the file, open it where "
                "it was made and save its tensors alone, with torch.save({'model': state_dict}, "
                "...)"
            ) from error
        raise WeightsError(
            f"{path} is not a checkpoint that torch can open, or is damaged: {reason_of(error)}"
        ) from error


def _peel(content: Any, path: Path) -> State:
    """The tensors inside the wrappers that training scripts put around them."""
    wrappers = ("model", "module", "state_dict", "model_ema")
    found = some(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    content = content if isinstance(content, Mapping) else {}
    for _ in wrappers:  # so deep, for a hostile one may hold itself
        inside = map(content.get, wrappers)
        content = next((each for each in inside if isinstance(each, Mapping)), content)
    state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not state:
        raise WeightsError(
            f"{path} holds no named tensors, neither bare nor under {', '.join(wrappers)}; "
            f"it holds: {found}"
        )
    return state


def save_safetensors(path: hub.PathLike, state: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file, atomically."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with hub.atomic_path(path) as temporary:
        # transformers refuses files that do not say which framework wrote them.
        safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt"})


def save_pth(path: hub.PathLike, state: Mapping[str, Tensor]) -> None:
    """Write tensors as the original code does, under "model" in a .pth file, atomically."""
    tensors = {key: value.detach().cpu().clone() for key, value in state.items()}
    with hub.atomic_path(path) as temporary:
        torch.save({"model": tensors}, temporary)


# The config

# Shapes do not say how many heads; the widths of published models do.
_PUBLISHED = [PRESETS[name] for name in ("small", "base", "large", "huge", "giant")]


def describe(
    checkpoint: Checkpoint, config: VideoMAEConfig | None, *, given: Mapping[str, Any]
) -> tuple[VideoMAEConfig, list[str]]:
    """The config of a checkpoint as it is, before any change, and notes on it.

    From `config` if there is one, else config.json, else from shapes and the head counts of the
    published widths. `given` are the caller's overrides, which may hold the heads. An image model
    has no grid of tubelets, so that the one asked for is its first, not resized.
    """
    facts, stored, of_images = checkpoint.facts, checkpoint.config, checkpoint.of_images
    heads = {key: given[key] for key in given if key.endswith("num_attention_heads")}
    notes = []
    if config is not None:
        described = config.copy()
        pooling = facts["use_mean_pooling"]
        if (stored is None or of_images) and described.use_mean_pooling != pooling:
            described.use_mean_pooling = pooling
            notes.append(
                f"use_mean_pooling is taken as {pooling}, for the file has "
                f"{'no final norm or a pooled one' if pooling else 'a final norm before pooling'}"
            )
    else:
        if stored is None:
            values = {**facts, **_known_heads(checkpoint, heads)}
            if checkpoint.scheme == "transformers":
                notes.append(
                    "there is no config.json, so that sizes are those of the weights and classes "
                    "have no names; pass config=. transformers' Trainer writes none for models "
                    "that are not its own: pass it callbacks=[videomae.SaveConfigCallback()]"
                )
            elif not checkpoint.scheme.startswith("transformers"):
                values |= {"layer_norm_eps": 1e-6, "pooled_norm_eps": 1e-6}
            resized = sorted({"image_size", "num_frames"} & set(given))
            if resized and "image_size" not in facts and not of_images:
                notes.append(
                    "the file does not say what it was trained on; 16 frames of 224 pixels are "
                    f"taken, and positions resized from there to the {' and '.join(resized)} asked "
                    "for; if it was trained on that, describe it with config= instead"
                )
        else:  # only transformers' own config.json of a VideoMAE holds all that follows from shapes
            values = {**({} if checkpoint.scheme == "transformers" else facts), **stored}
        # The published SSv2 models: trained at stride 2, tested on frames spread over the video.
        ssv2 = re.search(r"videomae-\w[\w-]*?(-finetuned)?-ssv2/?$", checkpoint.source)
        if ssv2:
            values.setdefault("frame_stride", None if ssv2[1] else 2)
        described = VideoMAEConfig.from_dict(values, **heads)

    sizes = (described.hidden_size, described.num_hidden_layers, described.num_attention_heads)
    by_transformers = stored is not None and "pooled_norm_eps" not in stored  # a field of ours
    if by_transformers and sizes == (384, 12, 16) and "num_attention_heads" not in heads:
        described.num_attention_heads = 6
        notes.append(
            "config.json says 16 heads, which a conversion script wrote for ViT-S by mistake; its "
            "weights were trained with 6, and 6 are used; pass num_attention_heads=16 if they are "
            "truly meant"
        )
    if of_images:
        grid_fields = {"image_size", "num_frames", "tubelet_size"} & set(given)
        described = described.copy(**{key: given[key] for key in grid_fields})
        notes.append(
            "an image model, to be trained on videos: its patches are inflated to tubelets of "
            f"{described.tubelet_size} frames, positions are those of {tuple(described.grid)} "
            f"tubelets; left out: {some(checkpoint.left_out) or 'nothing'}"
        )
    return described, notes


def _known_heads(checkpoint: Checkpoint, given: Mapping[str, Any]) -> dict[str, int]:
    """Head counts of published widths; WeightsError for another width: no shape has them in it."""
    heads = {}
    for part in ("", "decoder_"):
        field, width = f"{part}num_attention_heads", checkpoint.facts.get(f"{part}hidden_size")
        known = {sizes[f"{part}hidden_size"]: sizes[field] for sizes in _PUBLISHED}
        if width in known:
            heads[field] = known[width]
        elif width is not None and field not in given:
            raise WeightsError(
                f"{checkpoint.source} has {part}hidden_size={width} and does not say how many "
                f"heads; expected a published width ({', '.join(map(str, known))}), or pass "
                f"{field}=..., or a whole config="
            )
    return heads


# The V2 hub repositories nest the original code's arguments: theirs -> ours. Shapes say the rest.
_V2_FIELDS = {
    "img_size": "image_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "all_frames": "num_frames",
    "qkv_bias": "qv_bias",
    "use_mean_pooling": "use_mean_pooling",
}

# The config.json of an image MAE describes a decoder as well, which is left out.
_IMAGE_MAE_FIELDS = (
    *("image_size", "patch_size", "num_channels", "hidden_size", "num_hidden_layers"),
    *("num_attention_heads", "intermediate_size", "hidden_act", "hidden_dropout_prob"),
    *("attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"),
    *("dtype", "torch_dtype"),
)


def _published_config(path: Path, source: str) -> dict[str, Any]:
    """A config.json in our fields; WeightsError if it is not a VideoMAE's or an image MAE's."""
    values = hub.read_json(path)
    nested = values.get("model_config")
    if isinstance(nested, dict):
        config = {ours: nested[theirs] for theirs, ours in _V2_FIELDS.items() if theirs in nested}
        eps = nested.get("layer_norm_eps", 1e-6)
        return {**config, "layer_norm_eps": eps, "pooled_norm_eps": eps}
    model_type = values.get("model_type", "videomae")
    if model_type == "vit_mae":
        return {key: values[key] for key in _IMAGE_MAE_FIELDS if key in values}
    if model_type != "videomae":
        raise WeightsError(
            f"{source} is a {model_type!r} model by its config.json, expected 'videomae', or "
            "'vit_mae' to start from images"
        )
    return values
