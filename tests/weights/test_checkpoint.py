"""Files of every kind are read, hostile and damaged ones refused, and configs worked out."""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from videomae.config import VideoMAEConfig
from videomae.errors import WeightsError
from videomae.model.modeling import VideoMAEForPreTraining
from videomae.weights.checkpoint import (
    Checkpoint,
    _published_config,
    describe,
    has_pooled_norm,
    read_checkpoint,
    save_pth,
    save_safetensors,
)
from videomae.weights.checks import check_finite
from videomae.weights.keys import to_hf_file_keys, to_v1

State = dict[str, Tensor]
TINY = VideoMAEConfig.preset("tiny", use_mean_pooling=False)


@pytest.fixture
def raw(reference_dir: Path) -> State:
    """A fine-tuned model as the original code names it."""
    content: State = torch.load(reference_dir / "v1_finetune_tiny.pth", weights_only=True)["module"]
    return content


@pytest.fixture
def state(reference_dir: Path) -> State:
    """The same under our names."""
    return read_checkpoint(reference_dir / "v1_finetune_tiny.pth").state


def assert_same(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


# Pickles


@pytest.mark.parametrize(
    "wrap",
    [
        lambda raw: raw,
        lambda raw: {"model": raw, "epoch": 3, "optimizer": {"state": {}}},
        lambda raw: {"module": raw, "ds_version": "0.5"},
        lambda raw: {"state_dict": raw, "meta": {"epoch": 1}},
        lambda raw: {"model_ema": raw},
        lambda raw: {"model": {"module": raw}},
        lambda raw: {"model": raw, "model_ema": {k: v + 1 for k, v in raw.items()}},
    ],
    ids=["bare", "model", "module", "state_dict", "model_ema", "nested", "model before its ema"],
)
def test_wrappers_are_peeled(wrap: Any, raw: State, state: State, tmp_path: Path) -> None:
    torch.save(wrap(raw), tmp_path / "x.pth")
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert_same(checkpoint.state, state)
    assert checkpoint.scheme == "original fine-tuning code"
    assert checkpoint.source == "x.pth"
    assert checkpoint.config is None
    assert checkpoint.has_classifier
    assert not checkpoint.has_decoder


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_things_beside_the_tensors_are_accepted(
    zipped: bool, raw: State, state: State, tmp_path: Path
) -> None:
    content = {
        "model": raw,
        "args": argparse.Namespace(lr=1e-3, output_dir=Path("/runs/1"), device=torch.device("cpu")),
        "best": [np.float64(81.5), np.float32(1), np.int64(3), np.bool_(True)],
    }
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_checkpoint(path).state, state)


class Call:
    """Pickles as a call of any function: what reading it would run."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.mark.parametrize("kind", [pathlib.PosixPath, pathlib.WindowsPath])
def test_paths_of_any_system_are_accepted(
    kind: type, raw: State, state: State, tmp_path: Path
) -> None:
    torch.save({"model": raw, "path": Call(kind, "runs", "1")}, tmp_path / "x.pth")
    assert_same(read_checkpoint(tmp_path / "x.pth").state, state)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"(posix|nt)\.system"),
        (subprocess.check_call, r"(subprocess|commands)\.check_call"),
        (eval, "eval"),
        (functools.partial, r"functools\.partial"),
        (pathlib.Path, r"pathlib\.Path"),
        (torch.nn.Linear, r"torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_a_hostile_pickle_runs_nothing(
    function: Any, name: str, zipped: bool, raw: State, tmp_path: Path
) -> None:
    path, marker = tmp_path / "x.pth", tmp_path / "ran"
    argument = f"open({str(marker)!r}, 'w')" if function is eval else f"touch {marker}"
    content = {"model": raw, "args": Call(function, argument)}
    allowed = set(torch.serialization.get_safe_globals())
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        WeightsError, match=rf"holds (builtins\.)?{name}, which is not plain data; nothing"
    ):
        read_checkpoint(path)
    assert not marker.exists()
    assert set(torch.serialization.get_safe_globals()) == allowed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "model": {"lr": 1}}, r"holds no named tensors.*it holds: epoch, model"),
        ([torch.zeros(1)], "it holds: list"),
        ({0: torch.zeros(1)}, "it holds: 0"),
    ],
)
def test_a_pickle_without_tensors_says_what_it_holds(
    content: Any, message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / "x.pth")


def test_a_pickle_that_holds_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="holds no named tensors"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_mapped_where_their_format_allows(
    zipped: bool, raw: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, load, options = tmp_path / "x.pth", torch.load, {}
    torch.save(raw, path, _use_new_zipfile_serialization=zipped)

    def recorded(*args: Any, **kwargs: Any) -> Any:
        options.update(kwargs)
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", recorded)
    read_checkpoint(path)
    assert options == {"map_location": "cpu", "weights_only": True, "mmap": zipped}


# Damaged and other files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pth", b"nonsense", r"is not a checkpoint that torch can open, or is damaged"),
        ("x.pth", b"", r"is not a checkpoint that torch can open, or is damaged"),
        ("x.safetensors", b"nonsense", r"is not a whole safetensors file"),
        ("x.safetensors", b"", r"is not a whole safetensors file"),
        ("x.pth", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("x.h5", b"HDF", r"x\.h5 is not a weight file; expected \.safetensors, \.pth"),
    ],
)
def test_files_that_are_no_weights(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_truncated_files(name: str, raw: State, tmp_path: Path) -> None:
    path = tmp_path / name
    (save_pth if name == "x.pth" else save_safetensors)(path, raw)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError, match=r"damaged|not a whole safetensors file"):
        read_checkpoint(path)


# Folders


def write_shards(folder: Path, state: State, *, ending: str) -> dict[str, str]:
    """Two shards and their index, as transformers writes them."""
    name = {"safetensors": "model", "bin": "pytorch_model"}[ending]
    keys = sorted(state)
    places: dict[str, str] = {}
    for number, part in enumerate((keys[::2], keys[1::2]), 1):
        file = f"{name}-{number:05}-of-00002.{ending}"
        tensors = {key: state[key].clone() for key in part}
        if ending == "bin":
            torch.save(tensors, folder / file)
        else:
            safetensors.torch.save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / f"{name}.{ending}.index.json").write_text(json.dumps(index))
    return places


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards(ending: str, state: State, tmp_path: Path) -> None:
    write_shards(tmp_path, to_hf_file_keys(state), ending=ending)
    (tmp_path / "config.json").write_text('{"model_type": "videomae", "hidden_size": 48}')
    checkpoint = read_checkpoint(tmp_path)
    assert_same(checkpoint.state, state)
    assert checkpoint.scheme == "transformers"
    assert checkpoint.config == {"model_type": "videomae", "hidden_size": 48}


@pytest.mark.parametrize("name", ["x.pth", "model.safetensors", "pytorch_model.bin", "shards"])
@pytest.mark.parametrize("pooled", [True, False])
def test_a_pooled_norm_is_found_by_its_name(
    name: str, pooled: bool, raw: State, state: State, tmp_path: Path
) -> None:
    state, raw = ({k: x[k] for k in x if pooled or "fc_norm" not in k} for x in (state, raw))
    place = tmp_path
    if name == "shards":
        write_shards(tmp_path, state, ending="safetensors")
        for shard in tmp_path.glob("*.safetensors"):
            shard.unlink()  # the index alone tells
    elif name == "model.safetensors":
        save_safetensors(tmp_path / name, to_hf_file_keys(state))
    else:
        torch.save({"module": raw}, tmp_path / name)
        place = tmp_path / name
    assert has_pooled_norm(place) == pooled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("../x.safetensors", "would lead out of it"),
        ("/etc/passwd", "is no kind of weight file"),
        ("gone.safetensors", r"has no gone\.safetensors"),
        ("model-00001-of-00002.safetensors", r"lists 1 tensors that its files do not hold"),
        (7, "has no weight_map that names a file for each tensor"),
    ],
)
def test_a_wrong_index(change: Any, message: str, state: State, tmp_path: Path) -> None:
    places: dict[str, Any] = dict(write_shards(tmp_path, state, ending="safetensors"))
    last = sorted(places)[-1]
    (tmp_path.parent / "x.safetensors").write_bytes(b"")
    places[last] = change
    if change == "model-00001-of-00002.safetensors":
        places["not.there"] = change
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path)


def test_safetensors_come_before_pickles_unless_told(state: State, tmp_path: Path) -> None:
    save_safetensors(tmp_path / "model.safetensors", state)
    torch.save({key: value + 1 for key, value in state.items()}, tmp_path / "pytorch_model.bin")
    for choice, added in ((None, 0), (True, 0), (False, 1)):
        got = read_checkpoint(tmp_path, use_safetensors=choice).state
        assert torch.equal(got["classifier.bias"], state["classifier.bias"] + added)


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path: Path, raw: State) -> None:
    save_pth(tmp_path / "best.pth", raw)
    with pytest.raises(
        WeightsError,
        match=r"has no model\.safetensors or .* holds: best\.pth; looked for .* by its own path",
    ):
        read_checkpoint(tmp_path)
    with pytest.raises(WeightsError, match=r"looked for model\.safetensors, whole or in shards"):
        read_checkpoint(tmp_path, use_safetensors=True)


def test_the_config_beside_a_safetensors_file_is_read(state: State, tmp_path: Path) -> None:
    save_safetensors(tmp_path / "model.safetensors", state)
    assert read_checkpoint(tmp_path / "model.safetensors").config is None
    (tmp_path / "config.json").write_text('{"hidden_size": 48}')
    assert read_checkpoint(tmp_path / "model.safetensors").config == {"hidden_size": 48}


def test_another_model_is_refused_by_name(state: State, tmp_path: Path) -> None:
    save_safetensors(tmp_path / "model.safetensors", state)
    (tmp_path / "config.json").write_text('{"model_type": "timesformer"}')
    with pytest.raises(WeightsError, match="is a 'timesformer' model by its config"):
        read_checkpoint(tmp_path)


def test_an_image_model_with_parts_of_its_own_is_refused(raw: State, tmp_path: Path) -> None:
    image = {**raw, "patch_embed.proj.weight": torch.zeros(48, 3, 8, 8)}
    save_pth(tmp_path / "x.pth", {**image, "cls_token": torch.zeros(1, 1, 48)})
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert checkpoint.of_images
    assert not checkpoint.has_classifier
    assert set(checkpoint.left_out) == {"cls_token", "head.weight", "head.bias"}
    odd = {
        "blocks.0.attn.relative_position_bias_table": torch.zeros(3),
        "dist_token": image["head.bias"],
    }
    save_pth(tmp_path / "x.pth", {**image, **odd})
    with pytest.raises(
        WeightsError, match=r"is an image model with 2 tensors that no.*: blocks\.0"
    ):
        read_checkpoint(tmp_path / "x.pth")


# Writing


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_what_is_written_is_read(name: str, raw: State, state: State, tmp_path: Path) -> None:
    path = tmp_path / name
    strided = {
        key: value.t().contiguous().t() if value.ndim == 2 else value for key, value in raw.items()
    }
    (save_pth if name == "x.pth" else save_safetensors)(path, strided)
    assert_same(read_checkpoint(path).state, state)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_a_failed_write_leaves_the_old_file(
    name: str, raw: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    save = save_pth if name == "x.pth" else save_safetensors
    save(path, raw)
    before = path.read_bytes()

    def broken(*args: Any, **_: Any) -> None:
        Path(args[1]).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", broken)
    monkeypatch.setattr(safetensors.torch, "save_file", broken)
    with pytest.raises(OSError, match="No space left"):
        save(path, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


# Configs


def checkpoint(
    *,
    facts: dict[str, Any],
    config: dict[str, Any] | None = None,
    scheme: str = "original",
    source: str = "x.pth",
) -> Checkpoint:
    return Checkpoint(source, scheme, {}, {"use_mean_pooling": True, **facts}, config, (), ())


def described(
    read: Checkpoint, config: VideoMAEConfig | None = None, **given: Any
) -> tuple[VideoMAEConfig, list[str]]:
    return describe(read, config, given=given)


@pytest.mark.parametrize(
    ("width", "heads"), [(384, 6), (768, 12), (1024, 16), (1280, 16), (1408, 16)]
)
def test_heads_of_published_encoders(width: int, heads: int) -> None:
    config, notes = described(checkpoint(facts={"hidden_size": width}))
    assert config.num_attention_heads == heads
    assert (config.layer_norm_eps, config.pooled_norm_eps) == (1e-6, 1e-6)
    assert (config.image_size, config.num_frames) == (224, 16)
    assert notes == []


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (384, 6), (512, 8), (640, 8)])
def test_heads_of_published_decoders(width: int, heads: int) -> None:
    facts = {"hidden_size": 768, "decoder_hidden_size": width}
    assert described(checkpoint(facts=facts))[0].decoder_num_attention_heads == heads


def test_unknown_heads_are_asked_for_never_guessed() -> None:
    read = checkpoint(facts={"hidden_size": 48, "decoder_hidden_size": 24})
    with pytest.raises(
        WeightsError, match=r"x\.pth has hidden_size=48 and does not say.*pass num_attention_heads="
    ):
        described(read)
    with pytest.raises(WeightsError, match=r"has decoder_hidden_size=24.*pass decoder_num_attenti"):
        described(read, num_attention_heads=3)
    config, _ = described(read, num_attention_heads=3, decoder_num_attention_heads=2)
    assert (config.num_attention_heads, config.decoder_num_attention_heads) == (3, 2)


def test_a_transformers_file_alone_has_their_eps() -> None:
    config, _ = described(checkpoint(facts={"hidden_size": 768}, scheme="transformers"))
    assert (config.layer_norm_eps, config.pooled_norm_eps) == (1e-12, 1e-5)


def test_a_config_describes_what_the_file_cannot() -> None:
    given = VideoMAEConfig(hidden_size=48, num_attention_heads=3, image_size=32, patch_size=8)
    read = checkpoint(facts={"hidden_size": 48, "use_mean_pooling": False})
    config, notes = described(read, given)
    assert config.num_attention_heads == 3
    assert config.use_mean_pooling is False
    assert notes == [
        "use_mean_pooling is taken as False, for the file has a final norm before pooling"
    ]
    assert given.use_mean_pooling is True


def test_another_size_than_a_silent_file_may_have_is_announced() -> None:
    read = checkpoint(facts={"hidden_size": 768})
    _, notes = described(read, image_size=112, num_frames=32)
    assert len(notes) == 1
    assert "positions resized from there to the image_size and num_frames asked for" in notes[0]
    told = checkpoint(facts={"hidden_size": 768, "image_size": 224, "num_frames": 16})
    assert described(told, image_size=112)[1] == []


def test_an_image_model_takes_the_grid_that_is_asked_for() -> None:
    facts = {"hidden_size": 768, "patch_size": 14, "image_size": 224, "use_mean_pooling": False}
    read = dataclasses.replace(
        checkpoint(facts=facts, scheme="original image MAE"),
        of_images=True,
        left_out=("cls_token",),
    )
    config, notes = described(read)
    assert (config.grid, config.num_attention_heads) == ((8, 16, 16), 12)
    assert (config.layer_norm_eps, config.pooled_norm_eps) == (1e-6, 1e-6)
    assert len(notes) == 1
    assert (
        "tubelets of 2 frames, positions are those of (8, 16, 16) tubelets; left out: cls_token"
        in (notes[0])
    )
    config, _ = described(read, image_size=112, num_frames=12, tubelet_size=3)
    assert (config.grid, config.position_grid) == ((4, 8, 8), None)
    given = VideoMAEConfig(num_frames=8, tubelet_size=4, patch_size=14)
    config, notes = described(read, given, num_frames=4)
    assert (config.grid, config.position_grid) == ((1, 16, 16), None)
    assert config.use_mean_pooling is False


def test_the_config_of_an_image_model_tells_of_its_encoder_alone(tmp_path: Path) -> None:
    published = {
        "model_type": "vit_mae",
        "architectures": ["ViTMAEForPreTraining"],
        "hidden_size": 96,
        "num_attention_heads": 4,
        "layer_norm_eps": 1e-12,
        "decoder_hidden_size": 512,
        "norm_pix_loss": False,
        "mask_ratio": 0.75,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(published))
    fields = _published_config(path, "x")
    assert fields == {"hidden_size": 96, "num_attention_heads": 4, "layer_norm_eps": 1e-12}


SMALL: dict[str, Any] = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 16}


@pytest.mark.parametrize("as_config", [False, True])
def test_the_small_models_have_6_heads_whatever_their_config_says(as_config: bool) -> None:
    read = checkpoint(facts={}, config=SMALL, scheme="transformers")
    given = VideoMAEConfig.from_dict(SMALL) if as_config else None
    config, notes = described(read, given)
    assert config.num_attention_heads == 6
    assert len(notes) == 1
    assert notes[0].startswith("config.json says 16 heads")


def test_16_heads_can_be_meant() -> None:
    read = checkpoint(facts={}, config=SMALL, scheme="transformers")
    config, notes = described(read, num_attention_heads=16)
    assert (config.num_attention_heads, notes) == (16, [])
    ours = checkpoint(facts={}, config=VideoMAEConfig(**SMALL).to_dict(), scheme="transformers")
    config, notes = described(ours)
    assert (config.num_attention_heads, notes) == (16, [])


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("MCG-NJU/videomae-base-finetuned-ssv2", None),
        ("MCG-NJU/videomae-base-short-finetuned-ssv2", None),
        ("/models/videomae-base-ssv2", 2),
        ("MCG-NJU/videomae-base-short-ssv2", 2),
        ("MCG-NJU/videomae-base-finetuned-kinetics", 4),
        ("me/videomae-base-finetuned-ssv2-mine", 4),
    ],
)
def test_frame_stride_of_the_ssv2_models(name: str, stride: int | None) -> None:
    kind: dict[str, Any] = {"facts": {}, "scheme": "transformers", "source": name}
    assert described(checkpoint(config={}, **kind))[0].frame_stride == stride
    assert described(checkpoint(config={"frame_stride": 3}, **kind))[0].frame_stride == 3


V2_HUB = {
    "model_type": "VideoMAEv2_Base",
    "auto_map": {"AutoModel": "modeling_videomaev2.VideoMAEv2"},
    "model_config": {
        "img_size": 224,
        "patch_size": 8,
        "in_chans": 3,
        "num_classes": 0,
        "embed_dim": 48,
        "depth": 2,
        "num_heads": 3,
        "mlp_ratio": 4,
        "qkv_bias": True,
        "layer_norm_eps": 1e-6,
        "use_mean_pooling": True,
        "all_frames": 16,
        "tubelet_size": 2,
    },
}


def test_v2_hub_repositories(raw: State, tmp_path: Path) -> None:
    tensors = {f"model.{key}": value for key, value in raw.items() if "head" not in key}
    save_safetensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps(V2_HUB))
    (tmp_path / "modeling_videomaev2.py").write_text("raise SystemExit('remote code was run')")
    read = read_checkpoint(tmp_path)
    assert read.scheme == "VideoMAE V2 hub"
    config, notes = described(read)
    assert notes == []
    assert config.grid == (8, 28, 28)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (48, 2, 3)
    assert (config.intermediate_size, config.qv_bias, config.use_mean_pooling) == (192, True, True)
    assert (config.layer_norm_eps, config.pooled_norm_eps) == (1e-6, 1e-6)
    assert config.extra == {}


# What a file claims, and what it holds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor.bool(), r"holds encoder.* as torch\.bool; expected float32"),
        (lambda tensor: tensor.to(torch.int8), r" as torch\.int8; expected float32"),
        (lambda tensor: tensor.to(torch.complex64), r" as torch\.complex64; expected float32"),
        (lambda tensor: tensor.to_sparse(), "as a sparse, quantised, nested or empty tensor"),
        (lambda tensor: tensor.to("meta"), "as a sparse, quantised, nested or empty tensor"),
        (
            lambda _: torch.zeros(1).expand(10**6, 10**6),
            r"of shape \(1000000, 1000000\) in 4 bytes, expected 4,000,000,000,000; get it anew",
        ),
        (lambda tensor: torch.full_like(tensor, torch.nan), "not finite in float32: .*; get the"),
        (lambda _: torch.zeros(()), r"the patch embedding has shape \(\), expected 5 axes"),
    ],
)
def test_a_weight_that_is_no_weight_is_refused(
    tmp_path: Path, change: Callable[[Tensor], Tensor], message: str
) -> None:
    model = VideoMAEForPreTraining(TINY)
    state = to_v1(model.state_dict())
    name = "encoder.patch_embed.proj.weight"
    path = tmp_path / "x.pth"
    torch.save({"model": {**state, name: change(state[name])}}, path)
    heads = {"num_attention_heads": 4, "decoder_num_attention_heads": 2}
    with pytest.raises(WeightsError, match=message.replace("encoder.*", "videomae.*")):
        VideoMAEForPreTraining.from_pretrained(path, **heads)


def test_numbers_that_only_add_up_to_infinity_are_finite() -> None:
    check_finite({"x": torch.tensor([3e38, 3e38]), "y": torch.tensor([6e4] * 9).half()}, "x")
    with pytest.raises(
        WeightsError, match=r"^x has numbers .* not finite in float16: y; .*float32"
    ):
        check_finite({"y": torch.tensor([7e4]).half()}, "x")


def test_a_layer_far_away_is_no_reason_to_count_so_far(tmp_path: Path) -> None:
    state = to_v1(VideoMAEForPreTraining(TINY).state_dict())
    far = {key.replace("blocks.5.", "blocks.999999999."): value for key, value in state.items()}
    torch.save({"model": far}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"lacks videomae\.encoder\.layer\.5 though it has .*9;"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_layer_of_endless_digits_is_refused(tmp_path: Path) -> None:
    state = to_v1(VideoMAEForPreTraining(TINY).state_dict())
    far = {key.replace("blocks.3.", f"blocks.{'9' * 5000}."): t for key, t in state.items()}
    torch.save({"model": far}, tmp_path / "x.pth")
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "x.pth")


def test_a_small_file_cannot_claim_many_numbers_by_one_name_each(tmp_path: Path) -> None:
    state = to_v1(VideoMAEForPreTraining(TINY).state_dict())
    shared = {key: value for key, value in state.items() if "blocks.0." in key}
    more = {
        key.replace("blocks.0.", f"blocks.{n}."): t for key, t in shared.items() for n in (1, 2)
    }
    torch.save({"model": shared | more}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"holds tensors of [\d,]+ bytes in [\d,]+: they share"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_file_that_holds_itself_is_refused(tmp_path: Path) -> None:
    cycle: dict[str, Any] = {}
    cycle["model"] = cycle
    torch.save(cycle, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="holds no named tensors"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_flipped_bit_in_a_pickle_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    state = to_v1(VideoMAEForPreTraining(TINY).state_dict())
    torch.save({"model": state}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pth is damaged: it is not what was written .*CRC"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\0" * 10**6)
    with pytest.raises(WeightsError, match=r"it is compressed, which torch\.save never does"):
        read_checkpoint(path)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0, 8), (3, 3, 3)])
@pytest.mark.parametrize("name", ["gamma_1", "attn.qkv.weight", "pos_embed"])
def test_parts_of_a_strange_shape_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    state = to_v1(VideoMAEForPreTraining(TINY).state_dict())
    key = name if name == "pos_embed" else f"encoder.blocks.0.{name}"
    torch.save({"model": {**state, key: torch.ones(shape)}}, tmp_path / "x.pth")
    heads = {"num_attention_heads": 4, "decoder_num_attention_heads": 2}
    with pytest.raises(WeightsError):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "x.pth", **heads)
