"""The names of weights: every published spelling -> ours, ours -> theirs, and what they tell.

Ours are those a model has in memory, here and in transformers 5.23, always with the `videomae.`
prefix on the encoder: `videomae.encoder.layer.0.attention.attention.query.bias`. Image MAEs are
read too, for their layers are the same. Pure functions of names and shapes: which tensors a model
needs is decided in `pretrained.py`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from videomae.errors import WeightsError
from videomae.positions import sincos_positions

State = dict[str, Tensor]

_PATCHES = "videomae.embeddings.patch_embeddings.projection.weight"

# Around the whole model: torch.compile, DataParallel, MMAction2, the V2 hub files, transformers'
# image MAEs.
_WRAPPER = re.compile(r"(?:(?:module|backbone|model|vit)\.)+")

# Where a name starts -> how ours starts. `encoder.` is only ever a prefix of these parts, so that
# `encoder_to_decoder` is safe.
_STARTS = [
    (
        r"(?:encoder\.)?patch_embed\.proj(?:ection)?\.",
        "videomae.embeddings.patch_embeddings.projection.",
    ),
    (r"(?:encoder\.)?blocks\.(\d+)\.", r"videomae.encoder.layer.\1."),
    (r"(?:encoder\.)?norm\.", "videomae.layernorm."),
    (r"decoder\.blocks\.(\d+)\.", r"decoder.decoder_layers.\1."),
    (r"(?:cls_head\.fc_cls|head)\.", "classifier."),
    (
        r"(?:videomae\.)?((?:embeddings\.patch_embeddings|encoder\.layer|layernorm)\.)",
        r"videomae.\1",
    ),
    (r"((?:fc_norm|classifier|encoder_to_decoder|decoder\.(?:decoder_layers|norm|head))\.)", r"\1"),
    (r"(mask_token)$", r"\1"),
]

# Inside a layer: theirs -> ours.
_LAYER_PARTS = {
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "attn.q_bias": "attention.attention.query.bias",
    "attn.v_bias": "attention.attention.value.bias",
    "attention.attention.q_bias": "attention.attention.query.bias",
    "attention.attention.v_bias": "attention.attention.value.bias",
    "attn.proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
    "mlp.layers.0.0.": "intermediate.dense.",
    "mlp.layers.1.": "output.dense.",
}

_LAYER = re.compile(r"((?:videomae\.encoder\.layer|decoder\.decoder_layers)\.\d+\.)(.*)")
_IN_LAYER = re.compile(
    r"(?:attention\.attention\.(?:(?:query|key|value)\.weight|(?:query|value)\.bias)"
    r"|(?:attention\.output\.dense|intermediate\.dense|output\.dense"
    r"|layernorm_before|layernorm_after)\.(?:weight|bias))$"
)
_POSITIONS = re.compile(r"(?:encoder\.)?pos_embed$|embeddings\.position_embeddings$")

# What an image MAE has and a VideoMAE does not: a class token, positions over two axes, a decoder
# of single patches. A head was trained with the first two, so that it would answer wrongly.
_IMAGES_ONLY = re.compile(
    rf"{_POSITIONS.pattern}|(?:embeddings\.)?cls_token$|mask_token$|decoder[._]"
    r"|(?:head|classifier)\."
)


def _bare(key: str) -> str:
    key = key.replace("_orig_mod.", "")
    wrapper = _WRAPPER.match(key)
    return key[wrapper.end() :] if wrapper else key


def our_name(key: str) -> str | None:
    """Our name for a tensor, or None if no VideoMAE has it; fused tensors keep their last part."""
    key = _bare(key)
    for pattern, start in _STARTS:
        found = re.match(pattern, key)
        if found:
            name = found.expand(start) + key[found.end() :]
            layer = _LAYER.match(name)
            if layer is None:
                return name
            for theirs, ours in _LAYER_PARTS.items():
                if layer[2].startswith(theirs):
                    return layer[1] + ours + layer[2].removeprefix(theirs)
            return name
    return None


def of_images(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of an image model, under any known names: 2-D patches."""
    return any(tensor.ndim == 4 and our_name(key) == _PATCHES for key, tensor in state.items())


def without_image_parts(raw: Mapping[str, Tensor]) -> tuple[State, tuple[str, ...]]:
    """Of an image model what a VideoMAE begins with, and the names left out; others stay whole."""
    if not of_images(raw):
        return dict(raw), ()
    left_out = tuple(key for key in raw if _IMAGES_ONLY.match(_bare(key)))
    return {key: tensor for key, tensor in raw.items() if key not in left_out}, left_out


def inflate(state: State, tubelet_size: int) -> State:
    """2-D patches (D, C, p, q) -> tubelets (D, C, t, p, q); other tensors, and 3-D ones, stay.

    Each frame gets the image's weight divided by t, so that a tubelet of a still clip has the
    features of its patch in the image (Carreira & Zisserman 2017, section 2.2).
    """
    patches = state[_PATCHES]
    if patches.ndim != 4:
        return state
    tubelets = patches[:, :, None].expand(-1, -1, tubelet_size, -1, -1) / tubelet_size
    return {**state, _PATCHES: tubelets}


def rename(
    raw: Mapping[str, Tensor], *, source: str
) -> tuple[State, tuple[str, ...], tuple[str, ...]]:
    """Tensors under any known spelling -> the same under ours, the names left over, and notes.

    Fused qkv weights become three, the thirds in that order; layer scale (`gamma_1`, `gamma_2`) is
    multiplied into the linear map in front of it, which changes no output.
    """
    state: State = {}
    spelled: dict[str, str] = {}
    unexpected, scales, notes = [], {}, []

    def put(name: str, tensor: Tensor, key: str) -> None:
        if name in state:
            raise WeightsError(
                f"{source} holds {name} twice, as {spelled[name]} and as {key}; "
                "remove the one that is not meant"
            )
        state[name], spelled[name] = tensor, key

    for key, tensor in raw.items():
        name = our_name(key)
        if _POSITIONS.fullmatch(_bare(key)):
            _check_positions(tensor, key, source)
        elif key.startswith("data_preprocessor."):
            continue  # MMAction2's mean and std in 0..255: ImageNet's, as in all published models
        elif name is None:
            unexpected.append(key)
        elif (layer := _LAYER.match(name)) is None:
            put(name, tensor, key)
        elif layer[2] == "attn.qkv.weight":
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                put(f"{layer[1]}attention.attention.{part}.weight", third, key)
        elif layer[2] == "attn.qkv.bias":
            query, _, value = tensor.chunk(3)  # that of k adds the same to all scores of a query
            put(f"{layer[1]}attention.attention.query.bias", query, key)
            put(f"{layer[1]}attention.attention.value.bias", value, key)
        elif layer[2] == "attention.attention.key.bias":
            continue  # as with k's third above: the softmax does not see it, so nothing is lost
        elif layer[2] == "attn.scale":
            raise WeightsError(
                f"{source} was made with cosine attention ({key}), which no published model has "
                "and videomae does not compute; use a checkpoint trained without cos_attn"
            )
        elif layer[2] in ("gamma_1", "gamma_2"):
            scales[layer[1] + layer[2]] = tensor
        elif _IN_LAYER.match(layer[2]):
            put(name, tensor, key)
        else:
            unexpected.append(key)

    for name, scale in scales.items():
        layer_name, which = name.rsplit(".", 1)
        linear = "attention.output.dense" if which == "gamma_1" else "output.dense"
        for part, factor in (("weight", scale[:, None]), ("bias", scale)):
            tensor_name = f"{layer_name}.{linear}.{part}"
            if tensor_name in state:
                state[tensor_name] = state[tensor_name] * factor
    if scales:
        notes.append("layer scale was multiplied into the linear maps in front of it")
    if _PATCHES not in state:
        raise WeightsError(
            f"{source} is not a VideoMAE: it has no patch embedding under any known name; "
            f"it holds: {some(raw)}"
        )
    return state, tuple(unexpected), tuple(notes)


def _check_positions(table: Tensor, key: str, source: str) -> None:
    """A stored position table must be the fixed one, which the model computes for itself."""
    fixed = sincos_positions(table.shape[-2], table.shape[-1])
    # 2e-3: half precision near 1 is this coarse.
    if not torch.allclose(table.float().reshape(fixed.shape), fixed, atol=2e-3):
        raise WeightsError(
            f"{source} has learned positions ({key}), which no published model has and videomae "
            "does not use; expected the fixed sin-cos table"
        )


def to_hf_file_keys(state: Mapping[str, Tensor]) -> State:
    """Names in memory -> names in a transformers file.

    q and v biases are spelled `q_bias` and `v_bias`, which transformers 4 and 5 both read: early 5
    releases wrote `query.bias`, which 4 does not know, and 5.23 itself writes the old spelling.
    """
    pattern = re.compile(
        r"(attention\.attention)\.(q)uery\.bias$|(attention\.attention)\.(v)alue\.bias$"
    )

    def respell(found: re.Match[str]) -> str:
        return f"{found[1] or found[3]}.{found[2] or found[4]}_bias"

    return {pattern.sub(respell, key): value for key, value in state.items()}


def to_v1(state: Mapping[str, Tensor]) -> State:
    """Our names (with the `videomae.` prefix) -> those of the original code.

    Weights with a decoder get the pre-training names (`encoder.blocks.0...`), others those of
    fine-tuning (`blocks.0...`, `fc_norm`, `head`). Raises WeightsError for what the original model
    cannot express: a decoder without the encoder's final norm.
    """
    pretraining = "mask_token" in state
    if pretraining and "videomae.layernorm.weight" not in state:
        raise WeightsError(
            "these weights have a decoder but no videomae.layernorm, and the original pre-training "
            "model always has that norm; train with use_mean_pooling=False to convert"
        )
    prefix = "encoder." if pretraining else ""
    starts = {
        "videomae.embeddings.patch_embeddings.projection.": f"{prefix}patch_embed.proj.",
        "videomae.encoder.layer.": f"{prefix}blocks.",
        "videomae.layernorm.": f"{prefix}norm.",
        "decoder.decoder_layers.": "decoder.blocks.",
        "classifier.": "head.",
    }
    ours = [
        (our, their) for their, our in _LAYER_PARTS.items() if their.startswith(("attn", "norm"))
    ]
    ours += [("intermediate.dense.", "mlp.fc1."), ("output.dense.", "mlp.fc2.")]
    result: State = {}
    for key, tensor in state.items():
        start = next((start for start in starts if key.startswith(start)), "")
        name = starts.get(start, "") + key.removeprefix(start)
        layer = re.match(r"(.*blocks\.\d+\.)(.*)", name)
        if layer is None:
            result[name] = tensor
        elif layer[2] == "attention.attention.query.weight":
            parts = (key.replace("query", part) for part in ("query", "key", "value"))
            result[f"{layer[1]}attn.qkv.weight"] = torch.cat([state[part] for part in parts])
        elif not re.search(r"\.(key|value)\.weight$", layer[2]):
            our, their = next(pair for pair in ours if layer[2].startswith(pair[0]))
            result[layer[1] + their + layer[2].removeprefix(our)] = tensor
    return result


def scheme_of(raw: Mapping[str, Tensor]) -> str:
    keys = list(raw)
    bare = [_bare(key) for key in keys]
    if of_images(raw):
        of_original = any("blocks." in key for key in bare)
        return f"{'original' if of_original else 'transformers'} image MAE"
    if any(".mlp.layers." in key for key in bare) or any(k.startswith("cls_head.") for k in keys):
        return "MMAction2"
    if not any("blocks." in key for key in bare):
        return "transformers"
    if all(key.startswith("model.") for key in keys):
        return "VideoMAE V2 hub"
    pretraining = "mask_token" in bare or any(key.startswith("encoder.") for key in bare)
    return f"original {'pre-training' if pretraining else 'fine-tuning'} code"


def facts_of(state: State, raw: Mapping[str, Tensor], *, source: str) -> dict[str, Any]:
    """The config fields that follow from names and shapes."""
    patch = state[_PATCHES]
    if patch.ndim not in (4, 5):
        raise WeightsError(
            f"{source}: the patch embedding has shape {tuple(patch.shape)}, expected 5 axes "
            "(hidden, channels, tubelet, height, width), or 4 of an image MAE; get the file anew"
        )
    hidden, channels, *frames, height, width = patch.shape
    layer = "videomae.encoder.layer."
    facts: dict[str, Any] = {
        "hidden_size": hidden,
        "num_channels": channels,
        "patch_size": height if height == width else (height, width),
        "num_hidden_layers": _count_layers(state, layer, source),
        "qv_bias": f"{layer}0.attention.attention.query.bias" in state,
        # Without either norm (an encoder cut out of a classifier) there is none to lose.
        "use_mean_pooling": "fc_norm.weight" in state or "videomae.layernorm.weight" not in state,
    }
    if frames:
        facts["tubelet_size"] = frames[0]
    _put(facts, "intermediate_size", state, f"{layer}0.intermediate.dense.weight")
    _put(facts, "num_labels", state, "classifier.weight")
    if "encoder_to_decoder.weight" in state:
        layer = "decoder.decoder_layers."
        _put(facts, "decoder_hidden_size", state, "encoder_to_decoder.weight")
        _put(facts, "decoder_intermediate_size", state, f"{layer}0.intermediate.dense.weight")
        facts["decoder_num_hidden_layers"] = _count_layers(state, layer, source)
    # A stored table tells the number of tokens. VideoMAEs were made with 16 square frames, image
    # MAEs with one and a class token.
    num_frames, tubelet, num_extra = (16, frames[0], 0) if frames else (1, 1, 1)
    for key, table in raw.items():
        if _POSITIONS.fullmatch(_bare(key)) and height == width and num_frames % tubelet == 0:
            num_slices, num_cells = num_frames // tubelet, table.shape[-2] - num_extra
            side = math.isqrt(num_cells // num_slices)
            if side * side * num_slices == num_cells:
                facts["image_size"] = side * height
                if frames:
                    facts["num_frames"] = num_frames
    return facts


def _put(facts: dict[str, Any], field: str, state: State, key: str) -> None:
    if key in state:
        facts[field] = state[key].shape[0]


def _count_layers(state: State, prefix: str, source: str) -> int:
    numbers = {
        int(key.removeprefix(prefix).split(".")[0]) for key in state if key.startswith(prefix)
    }
    lost = set(range(max(numbers, default=-1) + 1)) - numbers
    if lost:
        raise WeightsError(
            f"{source} lacks {prefix}{min(lost)} though it has {prefix}{max(numbers)}; "
            "the file is incomplete"
        )
    return len(numbers)


def some(names: Iterable[str], count: int = 5) -> str:
    """The first few of many names."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
