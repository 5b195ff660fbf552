"""Every way in which a checkpoint and a model can differ is told, and the bad ones refused."""

import dataclasses
from typing import Any

import pytest
import torch

from videomae.config import VideoMAEConfig
from videomae.errors import WeightsError
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from videomae.weights.checkpoint import Checkpoint
from videomae.weights.keys import State, facts_of
from videomae.weights.matching import LoadReport, match

SIZES: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 24,
    "decoder_hidden_size": 6,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 12,
    "num_labels": 5,
}


def shapes(kind: Any, **overrides: Any) -> dict[str, tuple[int, ...]]:
    """What a model of these tiny sizes wants, under our names."""
    with torch.device("meta"):
        model = kind(VideoMAEConfig.from_dict(SIZES, **overrides))
    prefix = "videomae." if kind is VideoMAEModel else ""
    return {prefix + key: tuple(value.shape) for key, value in model.state_dict().items()}


def read(kind: Any, **overrides: Any) -> Checkpoint:
    """A checkpoint of such a model."""
    state = {key: torch.zeros(shape) for key, shape in shapes(kind, **overrides).items()}
    return of(state)


def of(state: State) -> Checkpoint:
    facts = facts_of(state, {}, source="x.pth")
    return Checkpoint("x.pth", "transformers", state, facts, None, (), ())


def without(checkpoint: Checkpoint, part: str) -> Checkpoint:
    return of({key: value for key, value in checkpoint.state.items() if part not in key})


def matched(
    kind: Any,
    checkpoint: Checkpoint,
    *,
    overrides: dict[str, Any] | None = None,
    **options: Any,
) -> LoadReport:
    config = VideoMAEConfig.from_dict(SIZES, **(overrides or {}))
    wanted = shapes(kind, **(overrides or {}))
    return match(wanted, checkpoint, model_name=kind.__name__, config=config, **options)


ONE_TOKEN = {"use_mean_pooling": False}
PRETRAINED = read(VideoMAEForPreTraining, **ONE_TOKEN)
CLASSIFIER = read(VideoMAEForVideoClassification)


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        (VideoMAEModel, {}),
        (VideoMAEModel, ONE_TOKEN),
        (VideoMAEForPreTraining, ONE_TOKEN),
        (VideoMAEForPreTraining, {}),
        (VideoMAEForVideoClassification, {}),
        (VideoMAEForVideoClassification, ONE_TOKEN),
        (VideoMAEForVideoClassification, {"qv_bias": False}),
    ],
)
def test_a_models_own_checkpoint_fits_wholly(kind: Any, overrides: dict[str, Any]) -> None:
    report = matched(kind, read(kind, **overrides), overrides=overrides)
    assert report.loaded == tuple(shapes(kind, **overrides))
    assert (report.missing, report.reshaped, report.unused, report.unexpected) == ((), (), (), ())
    assert report.newly_initialised == ()


def test_an_encoder_leaves_decoder_and_head() -> None:
    report = matched(VideoMAEModel, PRETRAINED, overrides=ONE_TOKEN)
    assert {key.split(".")[0] for key in report.unused} == {
        "decoder",
        "encoder_to_decoder",
        "mask_token",
    }
    assert report.newly_initialised == ()
    report = matched(VideoMAEModel, CLASSIFIER)
    assert {key.split(".")[0] for key in report.unused} == {"fc_norm", "classifier"}


def test_a_new_head_with_a_new_norm_leaves_the_encoders_norm() -> None:
    report = matched(VideoMAEForVideoClassification, PRETRAINED)
    head = ("fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias")
    assert report.missing == report.newly_initialised == head
    assert "videomae.layernorm.weight" in report.unused


def test_a_new_head_keeps_a_pooled_norm_that_is_there() -> None:
    report = matched(VideoMAEForVideoClassification, without(CLASSIFIER, "classifier"))
    assert report.missing == ("classifier.weight", "classifier.bias")
    assert "fc_norm.weight" in report.loaded


def test_lost_biases() -> None:
    checkpoint = without(without(CLASSIFIER, "query.bias"), "value.bias")
    with pytest.raises(
        WeightsError,
        match=r"x\.pth has lost the biases of q and v: videomae\.encoder\.layer\.0\.attention\."
        r"attention\.query\.bias \(12,\).*qv_bias is False in the file and True in the config; "
        r"early transformers 5 .* pass qv_bias=False",
    ):
        matched(VideoMAEForVideoClassification, checkpoint)
    with pytest.raises(WeightsError, match="has biases of q and v that qv_bias=False would lose"):
        matched(VideoMAEForVideoClassification, CLASSIFIER, overrides={"qv_bias": False})


def test_biases_lost_in_one_layer_are_missing_tensors() -> None:
    checkpoint = without(CLASSIFIER, "layer.1.attention.attention.query.bias")
    with pytest.raises(WeightsError, match=r"lacks 1 tensors .*layer\.1\.\S+query\.bias \(12,\)"):
        matched(VideoMAEForVideoClassification, checkpoint)


@pytest.mark.parametrize(
    ("kind", "checkpoint", "overrides", "message"),
    [
        (VideoMAEModel, PRETRAINED, {}, "would lose with use_mean_pooling=True"),
        (VideoMAEForPreTraining, PRETRAINED, {}, "would lose with use_mean_pooling=True"),
        (VideoMAEModel, CLASSIFIER, ONE_TOKEN, "needs with use_mean_pooling=False"),
        (VideoMAEForVideoClassification, CLASSIFIER, ONE_TOKEN, "needs with use_mean_pooling=F"),
        (
            VideoMAEForVideoClassification,
            read(VideoMAEForVideoClassification, **ONE_TOKEN),
            {},
            "lacks the final norm that VideoMAEForVideoClassification needs",
        ),
        (
            VideoMAEForPreTraining,
            without(PRETRAINED, "layernorm.weight"),
            ONE_TOKEN,
            "lacks the final norm",
        ),
    ],
)
def test_a_lost_final_norm(
    kind: Any, checkpoint: Checkpoint, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        matched(kind, checkpoint, overrides=overrides)
    assert str(caught.value).endswith(f"pass use_mean_pooling={bool(overrides)}")


def test_a_norm_may_be_lost_on_purpose() -> None:
    report = matched(VideoMAEModel, PRETRAINED, may_lose_norm=True)
    assert "videomae.layernorm.weight" in report.unused


def test_a_pooled_norm_is_not_lost_to_one_token_either() -> None:
    state = {**CLASSIFIER.state, **read(VideoMAEModel, **ONE_TOKEN).state}
    with pytest.raises(WeightsError, match=r"has a final norm that .* would lose.*fc_norm\.weight"):
        matched(VideoMAEForVideoClassification, of(state), overrides=ONE_TOKEN)


def test_no_decoder() -> None:
    with pytest.raises(
        WeightsError, match=r"x\.pth has no decoder .* take a pre-training checkpoint, such as MCG"
    ):
        matched(VideoMAEForPreTraining, CLASSIFIER)


def test_after_images_a_decoder_starts_afresh() -> None:
    checkpoint = dataclasses.replace(
        read(VideoMAEModel, **ONE_TOKEN), of_images=True, left_out=("cls_token",)
    )
    report = matched(VideoMAEForPreTraining, checkpoint, overrides=ONE_TOKEN)
    wanted = shapes(VideoMAEForPreTraining, **ONE_TOKEN)
    assert set(report.missing) == {key for key in wanted if not key.startswith("videomae.")}
    assert {"mask_token", "encoder_to_decoder.weight", "decoder.head.bias"} <= set(report.missing)
    assert report["unexpected_keys"] == {"cls_token"}
    assert "  of images, left out (1): cls_token" in str(report).splitlines()
    # but nothing of the encoder may be lost
    kept = {key: x for key, x in checkpoint.state.items() if ".layer.1.output" not in key}
    with pytest.raises(WeightsError, match="lacks 2 tensors"):
        matched(
            VideoMAEForPreTraining,
            dataclasses.replace(checkpoint, state=kept),
            overrides=ONE_TOKEN,
        )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"num_hidden_layers": 3},
            r"lacks 1\d tensors that VideoMAEForVideoClassification needs: videomae\.encoder\.layer"
            r"\.2\S* \(12, 12\).*; num_hidden_layers is 2 in the file and 3 in the config; pass a",
        ),
        (
            {"num_hidden_layers": 1},
            r"has 1\d tensors that \w+ has no place for: videomae\.encoder\.layer\.1.*"
            r"num_hidden_layers is 2 in the file and 1 in the config",
        ),
        (
            {"intermediate_size": 36},
            r"has 6 tensors of another shape \(videomae\.encoder\.layer\.0\.intermediate\.dense\."
            r"weight is \(24, 12\) there, \(36, 12\) in VideoMAEForVideoClassification, .*"
            r"intermediate_size is 24 in the file and 36 in the config; pass a config=",
        ),
    ],
)
def test_other_sizes(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        matched(VideoMAEForVideoClassification, CLASSIFIER, overrides=overrides)


def test_more_decoder_layers_than_wanted() -> None:
    deeper = read(VideoMAEForPreTraining, **ONE_TOKEN, decoder_num_hidden_layers=2)
    with pytest.raises(WeightsError, match="decoder_num_hidden_layers is 2 in the file and 1 in"):
        matched(VideoMAEForPreTraining, deeper, overrides=ONE_TOKEN)
    assert matched(VideoMAEModel, deeper, overrides=ONE_TOKEN).newly_initialised == ()


def test_another_number_of_classes() -> None:
    with pytest.raises(
        WeightsError,
        match=r"classifier\.weight is \(5, 12\) there, \(7, 12\) in .* "
        r"pass ignore_mismatched_sizes=True to start the head anew",
    ):
        matched(VideoMAEForVideoClassification, CLASSIFIER, overrides={"num_labels": 7})
    report = matched(
        VideoMAEForVideoClassification,
        CLASSIFIER,
        overrides={"num_labels": 7},
        ignore_mismatched_sizes=True,
    )
    assert report.reshaped == (
        ("classifier.weight", (5, 12), (7, 12)),
        ("classifier.bias", (5,), (7,)),
    )
    assert report.newly_initialised == ("classifier.weight", "classifier.bias")
    assert not set(report.loaded) & set(report.newly_initialised)


def test_only_what_is_outside_the_layers_may_start_anew() -> None:
    options: dict[str, Any] = {"ignore_mismatched_sizes": True}
    report = matched(
        VideoMAEForVideoClassification, CLASSIFIER, overrides={"num_channels": 4}, **options
    )
    assert report.newly_initialised == ("videomae.embeddings.patch_embeddings.projection.weight",)
    with pytest.raises(WeightsError, match="intermediate_size is 24 in the file and 36"):
        matched(
            VideoMAEForVideoClassification,
            CLASSIFIER,
            overrides={"intermediate_size": 36},
            **options,
        )


REPORT = LoadReport(
    source="x.pth",
    scheme="transformers",
    loaded=("a", "b"),
    missing=("fc_norm.weight",),
    unexpected=("aux",),
    reshaped=(("classifier.weight", (5, 12), (7, 12)),),
    unused=("mask_token",),
    notes=("told",),
)


def test_the_report_reads_well() -> None:
    assert str(REPORT).splitlines() == [
        "x.pth (transformers): 2 tensors loaded",
        "  newly initialised (2): fc_norm.weight, classifier.weight",
        "  not used by this model (1): mask_token",
        "  unexpected (1): aux",
        "  classifier.weight: file (5, 12), model (7, 12)",
        "  note: told",
    ]


def test_the_report_answers_to_the_names_of_transformers() -> None:
    assert dict(REPORT) == {
        "missing_keys": {"fc_norm.weight"},
        "unexpected_keys": {"mask_token", "aux"},
        "mismatched_keys": {("classifier.weight", (5, 12), (7, 12))},
        "error_msgs": [],
    }
    assert any(REPORT.values())
    assert len(REPORT) == 4
