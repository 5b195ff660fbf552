"""Checkpoints, configs, settings of processors and recipes, made wrong on purpose.

Each case starts from a small whole model in one of the forms that are read (V1, V2 and transformers
pickles, safetensors, shards with their index, a folder with config.json and
preprocessor_config.json) or from a recipe of the package, and changes one thing: its bytes, what a
pickle builds, a header, a shape, a type, a key, a number. What is then read must answer with finite
numbers; all else is refused in a sentence.

    python -m fuzz.weights_and_configs --output /tmp/weights --cases 2000
"""

import copy
import io
import json
import math
import os
import pickle
import random
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from fuzz.harness import arguments, campaign
from videomae.config import VideoMAEConfig
from videomae.errors import to_json
from videomae.inference import engines
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.recipe import find_recipe, load_recipe, recipe_names
from videomae.settings import FinetuneSettings, PretrainSettings
from videomae.weights.checkpoint import read_checkpoint
from videomae.weights.keys import to_hf_file_keys, to_v1

SIZES: dict[str, Any] = {
    "image_size": 16, "patch_size": 8, "num_frames": 4, "hidden_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 16, "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16, "id2label": {0: "walk", 1: "run", 2: "jump"},
}  # fmt: skip
State = dict[str, Any]
Change = Callable[[random.Random, State], Any]


def whole_model(draw: random.Random) -> Any:
    """A small model with random weights, of one of the two kinds that are published."""
    torch.manual_seed(draw.randrange(2**31))
    if draw.random() < 0.5:
        return VideoMAEForPreTraining(VideoMAEConfig(**SIZES, use_mean_pooling=False)).eval()
    return VideoMAEForVideoClassification(VideoMAEConfig(**SIZES)).eval()


# Values that a field of JSON or TOML, or an entry of a pickle, is not expected to hold.


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


ODD: list[Callable[[random.Random], Any]] = [
    lambda draw: 10 ** draw.randrange(3, 30),
    lambda draw: -draw.randrange(1, 10**9),
    lambda _: 0,
    lambda draw: draw.choice([math.nan, math.inf, -math.inf, 1e308, 1e-320, 0.5, -0.5]),
    lambda draw: draw.choice([True, False, None]),
    lambda draw: draw.choice(["", "x", "16", "nan", "\0", "a" * 10_000, "../../x", "1" * 5000]),
    lambda draw: [draw.randrange(-2, 10**9) for _ in range(draw.randrange(5))],
    lambda draw: {str(draw.randrange(-2, 10**9)): draw.choice(["a", 1, None, {}])},
    lambda draw: nested(draw.choice([3, 50, 150])),
    lambda _: {},
]


def odd(draw: random.Random) -> Any:
    return draw.choice(ODD)(draw)


# Changes of bytes.


def change_bytes(draw: random.Random, content: bytes) -> bytes:
    place = draw.randrange(max(len(content), 1))
    if draw.random() < 0.3:  # heads and directories hold the structure
        place = min(place, 300) if draw.random() < 0.5 else max(len(content) - 300, 0)
    length = draw.choice([1, 2, 4, 8, 64, 1000])
    match draw.randrange(6):
        case 0:
            return content[:place]
        case 1:
            flipped = bytearray(content)
            for _ in range(draw.choice([1, 1, 3, 16])):
                at = min(max(place + draw.randrange(-100, 100), 0), len(content) - 1)
                flipped[at] ^= 1 << draw.randrange(8)
            return bytes(flipped)
        case 2:
            return content[:place] + draw.randbytes(length) + content[place + length :]
        case 3:
            return content[:place] + draw.randbytes(length) + content[place:]
        case 4:
            return content[:place] + content[place + length :]
        case _:
            return content[:place] + b"\xff" * length + content[place + length :]


# Changes of tensors.

DTYPES = [
    *(torch.bool, torch.int8, torch.uint8, torch.int64, torch.complex64, torch.float64),
    *(torch.float16, torch.bfloat16, torch.float8_e4m3fn),
]


def change_tensor(draw: random.Random, tensor: torch.Tensor) -> Any:
    match draw.randrange(14):
        case 0:
            return tensor.to(draw.choice(DTYPES))
        case 1:
            return tensor.clone().fill_(draw.choice([math.nan, math.inf, -math.inf]))
        case 2:
            spoilt = tensor.clone()
            spoilt.view(-1)[draw.randrange(spoilt.numel())] = draw.choice([math.nan, math.inf])
            return spoilt
        case 3:
            return torch.zeros(1).expand([10 ** draw.randrange(1, 7)] * max(tensor.ndim, 1))
        case 4:
            return torch.empty_like(tensor, device="meta")
        case 5:
            return tensor.to_sparse()
        case 6:
            return tensor[None]
        case 7:
            return tensor.flatten()
        case 8:
            return tensor.transpose(0, -1)
        case 9:
            return tensor[:0]
        case 10:
            return torch.zeros(())
        case 11:
            return torch.cat([tensor, tensor])
        case 12:
            return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)
        case _:
            return tensor * draw.choice([1e30, 1e38])


def change_state(draw: random.Random, state: State) -> Any:
    """Named tensors with one thing wrong, as any program could save them."""
    key = draw.choice(list(state))
    match draw.randrange(10):
        case 0:
            del state[key]
        case 1:
            for each in draw.sample(list(state), len(state) // 2):
                del state[each]
        case 2:
            other: Any = draw.choice([key + "x", 7, ("a", 1), "", "extra.weight"])
            state[other] = state[key]
        case 3:  # numbers of layers that are not there
            number = draw.choice([2, 50, 10**6, 999_999_999, 10**30])
            names = [each for each in state if ".0." in each]
            state |= {each.replace(".0.", f".{number}.", 1): state[each] for each in names}
        case 4:
            state[key] = odd(draw)
        case 5:
            state[key.replace("query", "value").replace("weight", "bias")] = state[key]
        case 6:
            table = torch.zeros(1, draw.choice([0, 1, 8, 10**4]), draw.choice([0, 8, 9]))
            state[draw.choice(["pos_embed", "encoder.pos_embed"])] = table
        case 7:
            layer = key.rpartition(".")[0]
            state[f"{layer}.{draw.choice(['gamma_1', 'attn.scale', 'attn.qkv.weight'])}"] = (
                torch.zeros(draw.choice([(), (1,), (7,), (24, 8)]))
            )
        case _:
            state[key] = change_tensor(draw, state[key])
    return state


class Refused:
    """An object of code that nobody may run."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/ran",)


def change_pickle(draw: random.Random, state: State) -> Any:
    """What a pickle holds in place of named tensors."""
    match draw.randrange(9):
        case 0:
            state["model"] = state
            return {"model": state}
        case 1:
            loop: dict[str, Any] = {}
            loop["model"] = loop
            return loop
        case 2:
            for _ in range(draw.choice([1, 5, 100])):
                state = {draw.choice(["model", "module", "state_dict"]): state}
            return state
        case 3:
            return {"model": nested(draw.choice([3, 50, 150]))}
        case 4:
            return odd(draw)
        case 5:
            return {**state, "refused": Refused()}
        case 6:
            return {"model": {key: value.numpy() for key, value in state.items()}}
        case 7:
            return list(state.items())
        case _:
            return {"model": state, "args": odd(draw), "epoch": odd(draw)}


def change_stream(draw: random.Random, content: bytes) -> bytes:
    """Another pickle in a zip file of torch.save, with checksums that hold."""
    out = io.BytesIO()
    kind = draw.choice([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", kind) as new:
        victim = draw.choice(["data.pkl"] * 5 + ["data/0", "version", "byteorder"])
        for record in old.infolist():
            data = old.read(record)
            if record.filename.endswith(victim):
                data = change_bytes(draw, data)
                if victim == "data.pkl" and draw.random() < 0.3:  # integers that claim much
                    data = data.replace(b"K\x08", b"J" + struct.pack("<i", 2**31 - 1))
            new.writestr(record.filename, data)
    return out.getvalue()


def write_pickle(draw: random.Random, folder: Path) -> str:
    model = whole_model(draw)
    state, form = dict(model.state_dict()), draw.choice(["V1", "V2", "transformers"])
    if form != "transformers":
        state = to_v1(state)
    if form == "V2":
        state = {f"module.{key}": value for key, value in state.items()}
    how = draw.choice(["bytes", "state", "state", "pickle", "stream", "stream"])
    content: Any = change_state(draw, state) if how == "state" else state
    content = change_pickle(draw, state) if how == "pickle" else {"model": content}
    name = "pytorch_model.bin" if form == "transformers" else "weights.pth"
    legacy, plain = draw.random() < 0.2, draw.random() < 0.05
    if form == "transformers":
        model.config.save_pretrained(folder)
        content = content.get("model", content) if isinstance(content, dict) else content
    if plain:
        (folder / name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, folder / name, _use_new_zipfile_serialization=not legacy)
    if how == "bytes" or (how == "stream" and (legacy or plain)):
        (folder / name).write_bytes(change_bytes(draw, (folder / name).read_bytes()))
    elif how == "stream":
        (folder / name).write_bytes(change_stream(draw, (folder / name).read_bytes()))
    return f"{form} pickle: {how}"


def write_safetensors(draw: random.Random, folder: Path) -> str:
    model, how = whole_model(draw), draw.choice(["bytes", "state", "header"])
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    if how == "state":
        state = change_state(draw, to_hf_file_keys(model.state_dict()))
        fit = {k: v for k, v in state.items() if isinstance(k, str) and hasattr(v, "to_sparse")}
        whole = {
            key: value.clone().contiguous()
            for key, value in fit.items()
            if not (value.is_sparse or value.is_quantized or value.is_meta)
            and value.numel() < 10**7
        }
        path.write_bytes(safetensors.torch.save(whole, metadata={"format": "pt"}))
    content = path.read_bytes()
    if how == "bytes":
        path.write_bytes(change_bytes(draw, content))
    if how == "header":
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        entry: Any = header[draw.choice(list(header))]
        match draw.randrange(5):
            case 0:
                header[draw.choice(list(header))] = odd(draw)
            case 1:
                entry[draw.choice(list(entry))] = odd(draw)
            case 2 if "shape" in entry:
                entry["shape"] = [10 ** draw.randrange(10)] * draw.randrange(9)
            case 3:
                header["__metadata__"] = odd(draw)
            case _:
                length = draw.choice([0, 1, 2**31, 2**63, 2**64 - 1])
        text = json.dumps(header).encode()
        size = len(text) if length == struct.unpack("<Q", content[:8])[0] else length
        rest = content[8 + struct.unpack("<Q", content[:8])[0] :]
        path.write_bytes(struct.pack("<Q", size) + text + rest)
    return f"safetensors: {how}"


def write_shards(draw: random.Random, folder: Path) -> str:
    whole_model(draw).save_pretrained(folder, max_shard_size=2000)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    places = index["weight_map"]
    match draw.randrange(7):
        case 0:
            index = odd(draw)
        case 1:
            index["weight_map"] = odd(draw)
        case 2:
            places[draw.choice(list(places))] = odd(draw)
        case 3:
            places[draw.choice(list(places))] = draw.choice(["../x.safetensors", "/x.bin", "x.exe"])
        case 4:
            (folder / draw.choice(list(places.values()))).unlink()
        case 5:
            shard = folder / draw.choice(list(places.values()))
            shard.write_bytes(change_bytes(draw, shard.read_bytes()))
        case _:
            path.write_bytes(change_bytes(draw, path.read_bytes()))
            return "shards"
    path.write_text(json.dumps(index))
    return "shards"


def write_json_case(draw: random.Random, folder: Path) -> str:
    """A whole model with one of its two JSON files changed."""
    model = whole_model(draw)
    model.save_pretrained(folder)
    VideoMAEImageProcessor(size=16, crop_size=16).save_pretrained(folder)
    name = draw.choice(["config.json", "config.json", "preprocessor_config.json"])
    values: Any = json.loads((folder / name).read_text())
    if draw.random() < 0.2:
        content = change_bytes(draw, (folder / name).read_bytes())
        (folder / name).write_bytes(content)
        return f"{name}: bytes"
    for _ in range(draw.choice([1, 1, 1, 3])):
        key = draw.choice([*values, "extra", "torch_dtype", "num_labels", "position_grid", "fps"])
        match draw.randrange(8):
            case 0:
                values.pop(key, None)
            case 1 if isinstance(values.get(key), dict) and values[key]:
                values[key] = copy.copy(values[key])
                values[key][draw.choice(list(values[key]))] = odd(draw)
            case 2 if isinstance(values.get(key), int):
                values[key] *= draw.choice([2, 10, 1000, 10**6, -1])
            case _:
                values[key] = odd(draw)
    text = json.dumps(values)
    if draw.random() < 0.05:
        text = draw.choice(["[" * 100_000, "[]", "3", '"x"', "", "null", "9" * 5000, "{" * 5000])
    if draw.random() < 0.05:
        text = text.replace("8", "9" * 5000, 1)
    (folder / name).write_text(text)
    return f"{name}: values"


def write_recipe_case(draw: random.Random, folder: Path) -> str:
    text = find_recipe(draw.choice(recipe_names())).read_text()
    kind = "pretrain" if "mask_ratio" in text else "finetune"
    if draw.random() < 0.3:
        (folder / f"{kind}.toml").write_bytes(change_bytes(draw, text.encode()))
        return "recipe: bytes"
    lines = text.splitlines()
    values = [at for at, line in enumerate(lines) if " = " in line and line[0].isalpha()]
    at = draw.choice(values)
    key = lines[at].partition(" = ")[0]
    words = ["nan", "inf", "-1", "0", "1e9", "1e400", "true", '"x"', "[]", "[1, 2]", "{}", "-0.5"]
    words += ["1979-05-27", "9" * 50, "9" * 5000, "[" * 5000, "[nan]", '["a"]', '"uniform"', "0.5"]
    lines[at] = f"{key} = {draw.choice(words)}"
    (folder / f"{kind}.toml").write_text("\n".join(lines))
    return "recipe: values"


def make(draw: random.Random, folder: Path) -> str:
    weights = [5, 3, 1, 4, 1]
    makers = [write_pickle, write_safetensors, write_shards, write_json_case, write_recipe_case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return draw.choices(makers, weights)[0](draw, folder)


def attempt(folder: Path) -> str:
    """Read what lies there as the commands do, and compute with it."""
    warnings.simplefilter("ignore")
    for kind, settings in (("pretrain", PretrainSettings), ("finetune", FinetuneSettings)):
        if (folder / f"{kind}.toml").exists():
            loaded: Any = load_recipe(folder / f"{kind}.toml", settings)
            numbers = [value for value in vars(loaded).values() if isinstance(value, float)]
            assert all(map(math.isfinite, numbers)), loaded
            return "a recipe"
    path = next(folder.glob("*.pth"), folder)
    alone = {} if path is folder else {"num_attention_heads": 2, "decoder_num_attention_heads": 2}
    checkpoint = read_checkpoint(path)
    classes: Any = VideoMAEModel
    if checkpoint.has_decoder:
        classes = VideoMAEForPreTraining
    elif checkpoint.has_classifier:
        classes = VideoMAEForVideoClassification
    model = classes.from_pretrained(checkpoint, **alone).float()
    if (folder / "preprocessor_config.json").exists():
        frames = [np.zeros((20, 24, 3), np.uint8)] * 2
        VideoMAEVideoProcessor.from_pretrained(folder)
        processor = VideoMAEImageProcessor.from_pretrained(folder)
        pixels = processor(frames, return_tensors="pt")["pixel_values"]
        assert torch.isfinite(torch.as_tensor(pixels)).all(), "pixels are not finite"
    grid, config = model.config.grid, model.config
    if grid.num_tokens > 4000:
        return "larger than this test computes with"
    clip = torch.zeros(1, config.num_frames, config.num_channels, *config.image_hw)
    mask = torch.zeros(1, grid.num_tokens, dtype=torch.bool)
    mask[:, : max(grid.num_tokens // 2, 1)] = True
    extra = {"bool_masked_pos": mask} if classes is VideoMAEForPreTraining else {}

    def answer(pixels: torch.Tensor) -> torch.Tensor:
        output = model(pixels, **extra)
        found: torch.Tensor = output.get("logits", output.get("last_hidden_state"))
        return found

    engine = engines.load(model, engine="torch", dtype="float32", device="cpu")
    assert torch.isfinite(engine.run(answer, clip)).all(), "the answer is not finite"
    assert "NaN" not in to_json(model.config.to_dict()), "NaN in JSON"
    return type(model).__name__


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = arguments(__doc__ or "", cases=2000, seconds=20, megabytes=2000).parse_args()
    sys.exit(campaign(make, attempt, options))
