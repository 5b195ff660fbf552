"""Every published key mapping of the same weights gives the same tensors, and goes back."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from videomae.errors import WeightsError
from videomae.positions import sincos_positions
from videomae.weights.keys import (
    facts_of,
    inflate,
    of_images,
    rename,
    scheme_of,
    some,
    to_hf_file_keys,
    to_v1,
    without_image_parts,
)

Raw = dict[str, Tensor]


@pytest.fixture(params=["v1_pretrain_tiny", "v1_finetune_tiny", "v2_pretrain_tiny"])
def original(request: pytest.FixtureRequest, reference_dir: Path) -> Raw:
    return read(reference_dir, request.param)


@pytest.fixture
def pretrained(reference_dir: Path) -> Raw:
    return read(reference_dir, "v1_pretrain_tiny")


@pytest.fixture
def finetuned(reference_dir: Path) -> Raw:
    return read(reference_dir, "v1_finetune_tiny")


def read(reference_dir: Path, name: str) -> Raw:
    content = torch.load(reference_dir / f"{name}.pth", weights_only=True)
    raw: Raw = content.get("model", content.get("module"))
    return raw


def renamed(raw: Raw) -> Raw:
    state, unexpected, _ = rename(raw, source="x.pth")
    assert unexpected == ()
    return state


def assert_same(one: Raw, other: Raw) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def with_keys(raw: Raw, *pairs: tuple[str, str]) -> Raw:
    def change(key: str) -> str:
        for pattern, replacement in pairs:
            key = re.sub(pattern, replacement, key)
        return key

    return {change(key): tensor for key, tensor in raw.items()}


def test_qkv_is_split_in_thirds_q_k_v(pretrained: Raw) -> None:
    state = renamed(pretrained)
    fused = pretrained["encoder.blocks.1.attn.qkv.weight"]
    inside = "videomae.encoder.layer.1.attention.attention."
    for part, rows in (("query", fused[:48]), ("key", fused[48:96]), ("value", fused[96:])):
        assert torch.equal(state[f"{inside}{part}.weight"], rows)
    bias = pretrained["encoder.blocks.1.attn.v_bias"]
    assert torch.equal(state[f"{inside}value.bias"], bias)
    fused = pretrained["decoder.blocks.0.attn.qkv.weight"]
    inside = "decoder.decoder_layers.0.attention.attention."
    assert torch.equal(state[f"{inside}key.weight"], fused[24:48])


def test_fused_biases_are_split_and_that_of_k_left_out(pretrained: Raw) -> None:
    """softmax((q + b_q)(k + b_k)^T) = softmax((q + b_q) k^T): b_k adds the same to a whole row."""
    raw = {}
    for key, tensor in pretrained.items():
        if key.endswith("q_bias"):
            value = pretrained[key.replace("q_bias", "v_bias")]
            raw[key.replace("q_bias", "qkv.bias")] = torch.cat([tensor, tensor + 1, value])
        elif not key.endswith("v_bias"):
            raw[key] = tensor
    assert_same(renamed(raw), renamed(pretrained))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("encoder.patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias"),
        ("encoder.blocks.1.attn.proj.weight", "encoder.layer.1.attention.output.dense.weight"),
        ("encoder.blocks.1.norm1.weight", "encoder.layer.1.layernorm_before.weight"),
        ("encoder.blocks.1.norm2.bias", "encoder.layer.1.layernorm_after.bias"),
        ("encoder.blocks.0.mlp.fc1.weight", "encoder.layer.0.intermediate.dense.weight"),
        ("encoder.blocks.0.mlp.fc2.bias", "encoder.layer.0.output.dense.bias"),
        ("encoder.norm.weight", "layernorm.weight"),
    ],
)
def test_parts_of_the_encoder(pretrained: Raw, theirs: str, ours: str) -> None:
    assert torch.equal(renamed(pretrained)[f"videomae.{ours}"], pretrained[theirs])


def test_parts_outside_the_encoder(pretrained: Raw, finetuned: Raw) -> None:
    state = renamed(pretrained)
    for key in ("mask_token", "encoder_to_decoder.weight", "decoder.norm.weight"):
        assert torch.equal(state[key], pretrained[key])
    assert torch.equal(state["decoder.head.bias"], pretrained["decoder.head.bias"])
    state = renamed(finetuned)
    assert torch.equal(state["fc_norm.weight"], finetuned["fc_norm.weight"])
    assert torch.equal(state["classifier.weight"], finetuned["head.weight"])
    assert "videomae.layernorm.weight" not in state
    one_token = with_keys(finetuned, (r"^fc_norm", "norm"))
    assert torch.equal(renamed(one_token)["videomae.layernorm.bias"], finetuned["fc_norm.bias"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "backbone."])
def test_prefixes_of_whole_models(original: Raw, prefix: str) -> None:
    assert_same(renamed(with_keys(original, ("^", prefix))), renamed(original))


def test_compiled_parts(original: Raw) -> None:
    wrapped = with_keys(original, (r"(blocks\.\d+\.)", r"\1_orig_mod."))
    assert_same(renamed(wrapped), renamed(original))


def test_the_prefix_encoder_in_a_finetuned_file(finetuned: Raw) -> None:
    wrapped = with_keys(finetuned, (r"^(blocks|patch_embed)", r"encoder.\1"))
    assert_same(renamed(wrapped), renamed(finetuned))


def test_both_key_mappings_of_transformers_with_and_without_prefix(original: Raw) -> None:
    state = renamed(original)
    old = to_hf_file_keys(state)
    assert "videomae.encoder.layer.0.attention.attention.q_bias" in old
    assert not [key for key in old if re.search(r"(query|value)\.bias", key)]
    assert_same(renamed(state), state)
    assert_same(renamed(old), state)
    for names in (state, old):
        assert_same(renamed(with_keys(names, (r"^videomae\.", ""))), state)


def test_v2_hub_files(finetuned: Raw) -> None:
    raw = {f"model.{key}": value for key, value in finetuned.items() if "head" not in key}
    expected = {k: v for k, v in renamed(finetuned).items() if "classifier" not in k}
    assert_same(renamed(raw), expected)
    assert scheme_of(raw) == "VideoMAE V2 hub"


@pytest.mark.parametrize("ffn", [("layers.0.0", "layers.1"), ("fc1", "fc2")])
def test_mmaction2_files(finetuned: Raw, ffn: tuple[str, str]) -> None:
    raw = with_keys(
        finetuned,
        (r"^(patch_embed|blocks|fc_norm)", r"backbone.\1"),
        (r"patch_embed\.proj", "patch_embed.projection"),
        (r"mlp\.fc1", f"mlp.{ffn[0]}"),
        (r"mlp\.fc2", f"mlp.{ffn[1]}"),
        (r"^head", "cls_head.fc_cls"),
    )
    raw["backbone.pos_embed"] = sincos_positions(128, 48)[None]
    raw["data_preprocessor.mean"] = torch.zeros(3, 1, 1, 1)
    assert_same(renamed(raw), renamed(finetuned))
    assert scheme_of(raw) == "MMAction2"
    # 128 tokens of 8x8 pixels in 8 slices: 4 x 4 cells
    facts = facts_of(renamed(raw), raw, source="x.pth")
    assert (facts["num_frames"], facts["image_size"]) == (16, 32)


def test_layer_scale_is_folded_exactly(pretrained: Raw) -> None:
    """x + gamma * (W h + b) = x + (gamma W) h + gamma b, in both branches and both stacks."""
    generator = torch.Generator().manual_seed(1)
    scales = {
        "encoder.blocks.1.gamma_1": torch.rand(48, generator=generator),
        "encoder.blocks.1.gamma_2": torch.rand(48, generator=generator),
        "decoder.blocks.0.gamma_2": torch.rand(24, generator=generator),
    }
    plain = renamed(pretrained)
    state, unexpected, notes = rename({**scales, **pretrained}, source="x.pth")
    assert unexpected == ()
    assert notes == ("layer scale was multiplied into the linear maps in front of it",)
    changed = {key for key in plain if not torch.equal(plain[key], state[key])}
    folded = {
        "videomae.encoder.layer.1.attention.output.dense": scales["encoder.blocks.1.gamma_1"],
        "videomae.encoder.layer.1.output.dense": scales["encoder.blocks.1.gamma_2"],
        "decoder.decoder_layers.0.output.dense": scales["decoder.blocks.0.gamma_2"],
    }
    assert changed == {f"{name}.{part}" for name in folded for part in ("weight", "bias")}
    for name, gamma in folded.items():
        weight, bias = plain[f"{name}.weight"], plain[f"{name}.bias"]
        x = torch.randn(3, weight.shape[1], generator=generator)
        expected = gamma * torch.nn.functional.linear(x, weight, bias)
        got = torch.nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
        torch.testing.assert_close(got, expected)


def test_cosine_attention_is_refused(pretrained: Raw) -> None:
    raw = {**pretrained, "encoder.blocks.0.attn.scale": torch.ones(3, 1, 1)}
    with pytest.raises(WeightsError, match=r"x\.pth was made with cosine attention \(encoder"):
        rename(raw, source="x.pth")


def test_only_the_fixed_positions_are_accepted(finetuned: Raw) -> None:
    fixed = sincos_positions(128, 48)[None]
    for table in (fixed, fixed.half()):
        assert_same(renamed({**finetuned, "pos_embed": table}), renamed(finetuned))
    with pytest.raises(WeightsError, match=r"x\.pth has learned positions \(pos_embed\)"):
        rename({**finetuned, "pos_embed": fixed + 0.1}, source="x.pth")


def test_two_names_of_one_tensor_are_refused(finetuned: Raw) -> None:
    raw = {**finetuned, "module.head.bias": torch.zeros(7)}
    with pytest.raises(WeightsError, match=r"classifier\.bias twice, as head\.bias and as module"):
        rename(raw, source="x.pth")


def test_unknown_tensors_are_listed_as_the_file_names_them(finetuned: Raw) -> None:
    odd = {"module.aux.weight": torch.zeros(1), "blocks.0.attn.extra": torch.zeros(1)}
    state, unexpected, _ = rename({**odd, **finetuned}, source="x.pth")
    assert unexpected == tuple(odd)
    assert_same(state, renamed(finetuned))


def test_other_models_are_named_by_what_they_hold() -> None:
    with pytest.raises(WeightsError, match=r"x\.pth is not a VideoMAE.*it holds: conv1\.weight"):
        rename({"conv1.weight": torch.zeros(1)}, source="x.pth")


def test_to_v1_is_the_inverse(original: Raw) -> None:
    assert_same(to_v1(renamed(original)), original)


def test_to_v1_without_biases_and_without_head(finetuned: Raw) -> None:
    raw = {k: v for k, v in finetuned.items() if not re.search(r"_bias|head", k)}
    assert_same(to_v1(renamed(raw)), raw)


def test_to_v1_needs_the_encoders_norm(pretrained: Raw) -> None:
    state = {k: v for k, v in renamed(pretrained).items() if "videomae.layernorm" not in k}
    with pytest.raises(WeightsError, match=r"a decoder but no videomae\.layernorm"):
        to_v1(state)


@pytest.mark.parametrize(
    ("change", "scheme"),
    [
        (lambda raw: raw, "original pre-training code"),
        (lambda raw: with_keys(raw, ("^", "module.")), "original pre-training code"),
        (lambda raw: renamed(raw), "transformers"),
        (lambda raw: with_keys(renamed(raw), (r"^videomae\.", "")), "transformers"),
    ],
)
def test_schemes(pretrained: Raw, change: Callable[[Raw], Raw], scheme: str) -> None:
    assert scheme_of(change(pretrained)) == scheme


def test_scheme_of_finetuned_files(finetuned: Raw) -> None:
    assert scheme_of(finetuned) == "original fine-tuning code"


ENCODER_FACTS: dict[str, Any] = {
    "hidden_size": 48,
    "num_channels": 3,
    "tubelet_size": 2,
    "patch_size": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 192,
    "qv_bias": True,
}


def test_facts_of_pretraining(reference_dir: Path) -> None:
    raw = read(reference_dir, "v2_pretrain_tiny")
    assert facts_of(renamed(raw), raw, source="x.pth") == {
        **ENCODER_FACTS,
        "use_mean_pooling": False,
        "decoder_hidden_size": 24,
        "decoder_intermediate_size": 96,
        "decoder_num_hidden_layers": 2,
    }


def test_facts_of_finetuning(finetuned: Raw) -> None:
    facts = facts_of(renamed(finetuned), finetuned, source="x.pth")
    assert facts == {**ENCODER_FACTS, "use_mean_pooling": True, "num_labels": 7}
    one_token = renamed(with_keys(finetuned, (r"^fc_norm", "norm")))
    assert facts_of(one_token, {}, source="x.pth")["use_mean_pooling"] is False
    no_bias = {k: v for k, v in finetuned.items() if "_bias" not in k}
    assert facts_of(renamed(no_bias), {}, source="x.pth")["qv_bias"] is False


def test_facts_of_rectangular_patches(finetuned: Raw) -> None:
    raw = {**finetuned, "patch_embed.proj.weight": torch.zeros(48, 1, 4, 8, 16)}
    facts = facts_of(renamed(raw), raw, source="x.pth")
    assert [facts[k] for k in ("num_channels", "tubelet_size", "patch_size")] == [1, 4, (8, 16)]


def test_a_layer_lost_in_the_middle(pretrained: Raw) -> None:
    raw = {k: v for k, v in pretrained.items() if "encoder.blocks.0" not in k}
    with pytest.raises(WeightsError, match=r"lacks videomae\.encoder\.layer\.0 though it has"):
        facts_of(renamed(raw), raw, source="x.pth")


def test_a_patch_embedding_of_another_kind_is_refused(finetuned: Raw) -> None:
    for shape in ((48, 192), (48, 3, 0, 16, 16)):
        raw = {**finetuned, "patch_embed.proj.weight": torch.zeros(shape)}
        message = rf"shape {re.escape(str(shape))}, expected 5 axes.*or 4 of an image"
        with pytest.raises(WeightsError, match=message):
            facts_of(renamed(raw), raw, source="x.pth")


# Image MAEs


def of_original(finetuned: Raw) -> Raw:
    """An image MAE as the original code names it: 9 patches of 8x8 pixels and a class token."""
    raw = with_keys(finetuned, ("^fc_norm", "norm"))
    raw["patch_embed.proj.weight"] = raw["patch_embed.proj.weight"][:, :, 0]
    others = ("cls_token", "mask_token", "decoder_pos_embed", "decoder_blocks.0.norm1.weight")
    return {"pos_embed": torch.randn(1, 10, 48), **dict.fromkeys(others, torch.zeros(1)), **raw}


@pytest.mark.parametrize("shape", [(), (48,), (1, 0, 48)])
def test_positions_without_a_row_tell_of_no_size(finetuned: Raw, shape: tuple[int, ...]) -> None:
    raw = of_original(finetuned) | {"pos_embed": torch.zeros(shape)}
    kept, _ = without_image_parts(raw)
    assert "image_size" not in facts_of(renamed(kept), raw, source="x.pth")


def of_transformers(finetuned: Raw) -> Raw:
    kept, _ = without_image_parts(of_original(finetuned))
    raw = with_keys(renamed(kept), (r"^videomae\.", "vit."))
    raw["vit.encoder.layer.1.attention.attention.key.bias"] = torch.ones(48)
    raw["vit.embeddings.position_embeddings"] = torch.randn(1, 10, 48)
    others = ("vit.embeddings.cls_token", "decoder.mask_token", "decoder.decoder_layers.0.x.bias")
    return {**raw, **dict.fromkeys(others, torch.zeros(1))}


def test_image_parts_are_left_out_by_name(finetuned: Raw) -> None:
    raw = of_original(finetuned)
    kept, left_out = without_image_parts(raw)
    assert set(left_out) == {
        *("pos_embed", "cls_token", "mask_token", "head.weight", "head.bias"),
        *("decoder_pos_embed", "decoder_blocks.0.norm1.weight"),
    }
    assert kept.keys() == raw.keys() - set(left_out)
    raw = of_transformers(finetuned)
    kept_too, left_out = without_image_parts(raw)
    assert set(left_out) == {
        *("vit.embeddings.cls_token", "vit.embeddings.position_embeddings"),
        *("decoder.mask_token", "decoder.decoder_layers.0.x.bias"),
    }
    assert_same(renamed(kept_too), renamed(kept))
    without_prefix = with_keys(kept_too, (r"^vit\.", ""))
    assert_same(renamed(without_prefix), renamed(kept))


def test_video_models_keep_all_their_parts(original: Raw) -> None:
    assert not of_images(original)
    kept, left_out = without_image_parts(original)
    assert left_out == ()
    assert_same(kept, dict(original))


def test_facts_of_image_models(finetuned: Raw) -> None:
    expected = {key: value for key, value in ENCODER_FACTS.items() if key != "tubelet_size"}
    for make, scheme in ((of_original, "original"), (of_transformers, "transformers")):
        raw = make(finetuned)
        assert of_images(raw)
        assert scheme_of(raw) == f"{scheme} image MAE"
        state = renamed(without_image_parts(raw)[0])
        facts = facts_of(state, raw, source="x.pth")
        assert facts == {**expected, "use_mean_pooling": False, "image_size": 24}


def test_inflated_patches_add_up_to_the_images(finetuned: Raw) -> None:
    state = renamed(without_image_parts(of_original(finetuned))[0])
    name = "videomae.embeddings.patch_embeddings.projection.weight"
    for tubelet_size in (1, 2, 3):
        inflated = inflate(state, tubelet_size)
        assert inflated[name].shape == (48, 3, tubelet_size, 8, 8)
        torch.testing.assert_close(inflated[name].sum(2), state[name])
        assert (inflated[name] == inflated[name][:, :, :1]).all()
        assert_same({**inflated, name: state[name]}, state)
        assert inflate(inflated, 5) is inflated


def test_some_shortens() -> None:
    assert some("abc") == "a, b, c"
    assert some("abcdefg") == "a, b, c, d, e and 2 more"
