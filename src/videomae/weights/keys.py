"""Key mappings: every published name of a weight -> ours, ours -> theirs, and the facts in them.

Ours are those a model has in memory, here and in transformers 5.23, always with the `videomae.`
prefix on the encoder: `videomae.encoder.layer.0.attention.attention.query.bias`.
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

# The original code's names -> ours: where a name starts, and inside a layer.
_STARTS = {
    "patch_embed.proj.": "videomae.embeddings.patch_embeddings.projection.",
    "blocks.": "videomae.encoder.layer.",
    "norm.": "videomae.layernorm.",
    "decoder.blocks.": "decoder.decoder_layers.",
    "head.": "classifier.",
}
_LAYER_PARTS = {
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "attn.q_bias": "attention.attention.query.bias",
    "attn.v_bias": "attention.attention.value.bias",
    "attn.proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}

# Around a whole model, or a part: torch.compile, DataParallel, MMAction2, the V2 hub files,
# transformers' image MAEs.
_WRAPPERS = re.compile(r"^(?:(?:_orig_mod|module|backbone|model|vit)\.)+|_orig_mod\.")

# The other published names -> those of the original code, or ours.
_VARIANTS = [
    (r"^encoder\.(?=(?:patch_embed|blocks|norm)\.)", ""),  # pre-training
    (r"^patch_embed\.projection\.", "patch_embed.proj."),  # MMAction2, to its head
    (r"\.mlp\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.mlp\.layers\.1\.", ".mlp.fc2."),
    (r"^cls_head\.fc_cls\.", "head."),
    (r"\.attention\.attention\.([qv])_bias$", r".attn.\1_bias"),  # transformers 4
    # an encoder that was saved alone
    (r"^(?=(?:embeddings\.patch_embeddings|encoder\.layer|layernorm)\.)", "videomae."),
]

_LAYER_START = r"(?:videomae\.encoder\.layer|decoder\.decoder_layers)\.\d{1,9}\."
_LAYER = re.compile(rf"({_LAYER_START})(.*)")
_OURS = re.compile(
    r"(?:videomae\.(?:embeddings\.patch_embeddings|layernorm)|fc_norm|classifier"
    r"|encoder_to_decoder|decoder\.(?:norm|head))\..*|mask_token"
    rf"|{_LAYER_START}"
    r"(?:attention\.attention\.(?:(?:query|key|value)\.weight|(?:query|value)\.bias)"
    r"|(?:attention\.output\.dense|intermediate\.dense|output\.dense"
    r"|layernorm_before|layernorm_after)\.(?:weight|bias))"
)
_PATCHES = "videomae.embeddings.patch_embeddings.projection.weight"
_POSITIONS = re.compile(r"(?:encoder\.)?pos_embed$|embeddings\.position_embeddings$")

# What an image MAE has and a VideoMAE does not: a class token, positions over two axes, a decoder
# of single patches. A head was trained with the first two, so that it would answer wrongly.
_IMAGES_ONLY = re.compile(
    rf"{_POSITIONS.pattern}|(?:embeddings\.)?cls_token$|mask_token$|decoder[._]"
    r"|(?:head|classifier)\."
)


def _bare(key: str) -> str:
    return _WRAPPERS.sub("", key)


def _with_start(name: str, starts: Mapping[str, str]) -> str:
    """The name with its start replaced, where that is known."""
    start = next(filter(name.startswith, starts), "")
    return starts.get(start, "") + name.removeprefix(start)


def _split(name: str) -> tuple[str, str]:
    """The layer and the part in it, of one of our names; all and nothing outside of layers."""
    found = _LAYER.match(name)
    return (found[1], found[2]) if found else (name, "")


def our_name(key: str) -> str:
    """Our name for a tensor; one that no VideoMAE has keeps what is unknown in its own."""
    key = _bare(key)
    for pattern, replacement in _VARIANTS:
        key = re.sub(pattern, replacement, key)
    layer, part = _split(_with_start(key, _STARTS))
    return layer + _with_start(part, _LAYER_PARTS)


def of_images(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of an image model, under any known names: 2-D patches."""
    return any(tensor.ndim == 4 and our_name(key) == _PATCHES for key, tensor in state.items())


def without_image_parts(raw: Mapping[str, Tensor]) -> tuple[State, tuple[str, ...]]:
    """Leave out what only image models have, and name it; other models stay whole."""
    left_out = [key for key in raw if _IMAGES_ONLY.match(_bare(key))] if of_images(raw) else []
    return {key: tensor for key, tensor in raw.items() if key not in left_out}, tuple(left_out)


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
    """Tensors under any known names -> the same under ours, the names left over, and notes.

    Fused qkv weights become three, the thirds in that order; layer scale (`gamma_1`, `gamma_2`) is
    multiplied into the linear map in front of it, which changes no output.
    """
    state: State = {}
    scales: State = {}  # by the linear map in front
    keys: dict[str, str] = {}  # our name -> the one in the file
    unexpected = []

    def put(name: str, tensor: Tensor) -> None:
        if name in state:
            raise WeightsError(
                f"{source} holds {name} twice, as {keys[name]} and as {key}; "
                "remove the one that is not meant"
            )
        state[name], keys[name] = tensor, key

    for key, tensor in raw.items():
        name = our_name(key)
        layer, part = _split(name)
        if _POSITIONS.fullmatch(_bare(key)):
            _check_positions(tensor, key, source)
        elif key.startswith("data_preprocessor."):
            continue  # MMAction2's mean and std in 0..255: ImageNet's, as in all published models
        elif part == "attention.attention.key.bias":
            continue  # it adds the same to all scores of a query, which the softmax does not see
        elif part in ("attn.qkv.weight", "attn.qkv.bias"):
            kind = part.removeprefix("attn.qkv.")
            if not tensor.ndim or not len(tensor) or len(tensor) % 3:
                raise WeightsError(
                    f"{source} has {key} of shape {tuple(tensor.shape)}, expected a multiple of 3 "
                    "rows, for queries, keys and values; get the file anew"
                )
            for each, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                if (each, kind) != ("key", "bias"):  # as above
                    put(f"{layer}attention.attention.{each}.{kind}", third)
        elif part == "attn.scale":
            raise WeightsError(
                f"{source} was made with cosine attention ({key}), which no published model has "
                "and videomae does not compute; use a checkpoint trained without cos_attn"
            )
        elif part in ("gamma_1", "gamma_2"):
            scales[f"{layer}{'attention.' if part == 'gamma_1' else ''}output.dense"] = (
                tensor.ravel()
            )
        elif _OURS.fullmatch(name):
            put(name, tensor)
        else:
            unexpected.append(key)

    for linear, scale in scales.items():
        for name, factor in ((f"{linear}.weight", scale[:, None]), (f"{linear}.bias", scale)):
            if name in state and len(factor) != len(state[name]):
                raise WeightsError(
                    f"{source} has {len(factor)} factors for {name} {tuple(state[name].shape)}; "
                    "get the file anew"
                )
            if name in state:
                state[name] = state[name] * factor
    notes = ("layer scale was multiplied into the linear maps in front of it",) if scales else ()
    if _PATCHES not in state:
        raise WeightsError(
            f"{source} is not a VideoMAE: it has no patch embedding under any known name; "
            f"it holds: {some(raw)}"
        )
    return state, tuple(unexpected), notes


def _check_positions(table: Tensor, key: str, source: str) -> None:
    """A stored position table must be the fixed one, which the model computes for itself."""
    is_table = table.ndim in (2, 3) and 0 < table.numel() == math.prod(table.shape[-2:])
    fixed = sincos_positions(table.shape[-2], table.shape[-1]) if is_table else table
    # 2e-3: half precision near 1 is this coarse.
    if not is_table or not torch.allclose(table.float().reshape(fixed.shape), fixed, atol=2e-3):
        raise WeightsError(
            f"{source} has learned positions ({key}), which no published model has and videomae "
            "does not use; expected the fixed sin-cos table"
        )


def to_hf_file_keys(state: Mapping[str, Tensor]) -> State:
    """Names in memory -> names in a transformers file.

    transformers 4 and 5 both read `q_bias` and `v_bias`; 4 does not know `query.bias`.
    """
    return {
        key.replace(".query.bias", ".q_bias").replace(".value.bias", ".v_bias"): value
        for key, value in state.items()
    }


def from_hf_file_keys(state: Mapping[str, Tensor]) -> State:
    """The inverse of `to_hf_file_keys`; names in memory stay."""
    return {
        key.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias"): value
        for key, value in state.items()
    }


def to_v1(state: Mapping[str, Tensor]) -> State:
    """Our names (with the `videomae.` prefix) -> those of the original code.

    Weights with a decoder get the pre-training names (`encoder.blocks.0...`), others those of
    fine-tuning (`blocks.0...`, `fc_norm`, `head`). WeightsError: a decoder without the encoder's
    final norm, which the original model always has.
    """
    pretraining = "mask_token" in state
    if pretraining and "videomae.layernorm.weight" not in state:
        raise WeightsError(
            "these weights have a decoder but no videomae.layernorm, and the original pre-training "
            "model always has that norm; train with use_mean_pooling=False to convert"
        )
    starts = {ours: theirs for theirs, ours in _STARTS.items()}
    parts = {ours: theirs for theirs, ours in _LAYER_PARTS.items()}
    result: State = {}
    for key, tensor in state.items():
        layer, part = _split(key)
        start = _with_start(layer, starts)
        if pretraining and key.startswith("videomae."):
            start = f"encoder.{start}"
        if part == "attention.attention.query.weight":
            three = [state[key.replace("query", name)] for name in ("query", "key", "value")]
            result[f"{start}attn.qkv.weight"] = torch.cat(three)
        elif not part.endswith((".key.weight", ".value.weight")):
            result[start + _with_start(part, parts)] = tensor
    return result


def scheme_of(raw: Mapping[str, Tensor]) -> str:
    """The code that wrote these names, in words."""
    bare = [_bare(key) for key in raw]
    has_blocks = any("blocks." in key for key in bare)
    if of_images(raw):
        return f"{'original' if has_blocks else 'transformers'} image MAE"
    if any(".mlp.layers." in key or key.startswith("cls_head.") for key in raw):
        return "MMAction2"
    if not has_blocks:
        return "transformers"
    if all(key.startswith("model.") for key in raw):
        return "VideoMAE V2 hub"
    pretraining = any(key == "mask_token" or key.startswith("encoder.") for key in bare)
    return f"original {'pre-training' if pretraining else 'fine-tuning'} code"


def facts_of(state: State, raw: Mapping[str, Tensor], *, source: str) -> dict[str, Any]:
    """The config fields that follow from names and shapes."""
    patch = state[_PATCHES]
    if patch.ndim not in (4, 5) or 0 in patch.shape:
        raise WeightsError(
            f"{source}: the patch embedding has shape {tuple(patch.shape)}, expected 5 axes "
            "(hidden, channels, tubelet, height, width), or 4 of an image MAE; get the file anew"
        )
    hidden, channels, *frames, height, width = patch.shape
    encoder, decoder = "videomae.encoder.layer.", "decoder.decoder_layers."
    facts: dict[str, Any] = {
        "hidden_size": hidden,
        "num_channels": channels,
        "patch_size": height if height == width else (height, width),
        "num_hidden_layers": _count_layers(state, encoder, source),
        "qv_bias": f"{encoder}0.attention.attention.query.bias" in state,
        # Without either norm (an encoder cut out of a classifier) there is none to lose.
        "use_mean_pooling": "fc_norm.weight" in state or "videomae.layernorm.weight" not in state,
    }
    if frames:
        facts["tubelet_size"] = frames[0]
    if "encoder_to_decoder.weight" in state:
        facts["decoder_num_hidden_layers"] = _count_layers(state, decoder, source)
    sizes = {
        "intermediate_size": f"{encoder}0.intermediate.dense.weight",
        "num_labels": "classifier.weight",
        "decoder_hidden_size": "encoder_to_decoder.weight",
        "decoder_intermediate_size": f"{decoder}0.intermediate.dense.weight",
    }
    for field, name in sizes.items():
        if name in state and state[name].ndim:
            facts[field] = len(state[name])
    # A stored table has a row per token. VideoMAEs were made with 16 square frames, image MAEs with
    # one and a class token.
    num_frames, tubelet, num_extra = (16, frames[0], 0) if frames else (1, 1, 1)
    for key, table in raw.items():
        if _POSITIONS.fullmatch(_bare(key)) and height == width and num_frames % tubelet == 0:
            num_slices, num_cells = num_frames // tubelet, math.prod(table.shape[:-1]) - num_extra
            if num_cells < 1:
                continue
            side = math.isqrt(num_cells // num_slices)
            if side * side * num_slices == num_cells:
                facts["image_size"] = side * height
                if frames:
                    facts["num_frames"] = num_frames
    return facts


def _count_layers(state: State, prefix: str, source: str) -> int:
    inside = [key.removeprefix(prefix) for key in state if key.startswith(prefix)]
    numbers = {int(key.partition(".")[0]) for key in inside}
    # So many are there: a number alone, however large, is no layer.
    lost = next((number for number in range(len(numbers)) if number not in numbers), None)
    if lost is not None:
        raise WeightsError(
            f"{source} lacks {prefix}{lost} though it has {prefix}{max(numbers)}; "
            "the file is incomplete"
        )
    return len(numbers)


def some(names: Iterable[str]) -> str:
    """The first five of many names."""
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
