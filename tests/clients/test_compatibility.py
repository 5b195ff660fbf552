"""Each row of docs/compatibility.md that compares with transformers, in the words of a test."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import videomae
from videomae.errors import ConfigError, VideoMAEError, WeightsError
from videomae.video.writer import write_video

transformers = pytest.importorskip("transformers", reason="needs the extra clients")

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
ROWS: dict[str, str] = {}  # how a row begins -> its test


def row(start):
    """Say which row a test is for."""

    def keep(test):
        ROWS[start] = test.__name__
        return test

    return keep


def test_every_row_has_a_test_and_every_test_a_row():
    rows, compares = [], False
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            compares = False
        elif line.startswith("| here | transformers |"):
            compares = True
        elif compares and not line.startswith("|---"):
            rows.append(line.removeprefix("| "))
    found = [[start for start in ROWS if line.startswith(start)] for line in rows]
    assert [rows[i] for i, starts in enumerate(found) if len(starts) != 1] == []
    assert {start for starts in found for start in starts} == set(ROWS)


@row("`VideoMAEForVideoClassification.from_pretrained` on a pre-training checkpoint")
def test_a_classifier_of_pretraining_pools_all_tokens(make, tmp_path):
    make.pretrainer(transformers, use_mean_pooling=False).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="takes the mean over all tokens"):
        ours = videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path)
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert (ours.config.use_mean_pooling, theirs.config.use_mean_pooling) == (True, False)


@row("lost q/v biases")
@pytest.mark.parametrize("lost", ["q_bias", "videomae.layernorm", "layer.1.output", "decoder"])
def test_lost_tensors_are_errors(make, tmp_path, lost):
    make.pretrainer(videomae, use_mean_pooling=False).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    state = {key: value for key, value in load_file(path).items() if lost not in key}
    save_file(state, path, {"format": "pt"})
    with pytest.raises(WeightsError):
        videomae.VideoMAEForPreTraining.from_pretrained(tmp_path)
    transformers.VideoMAEForPreTraining.from_pretrained(tmp_path)


@row("a ViT-S config that says 16 heads")
def test_small_config_of_16_heads_is_read_as_6(tmp_path):
    sizes = {"hidden_size": 384, "intermediate_size": 16, "num_hidden_layers": 12}
    model = transformers.VideoMAEModel(transformers.VideoMAEConfig(**sizes, num_attention_heads=16))
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="config.json says 16 heads"):
        ours = videomae.VideoMAEModel.from_pretrained(tmp_path)
    assert ours.config.num_attention_heads == 6


@row("masks must hide equally many tubelets")
def test_unequal_masks(make, clips, mask):
    mask[0, 1], mask[1, 0] = False, True
    with pytest.raises(ConfigError, match=r"equally many tubelets, got \[23, 25\]"):
        make.pretrainer(videomae)(clips, mask)
    make.pretrainer(transformers)(clips, mask)


@row("`norm_pix_loss=False` works for any number of channels")
def test_loss_of_pixels_of_one_channel(make, clips, mask):
    fields = {"norm_pix_loss": False, "num_channels": 1}
    config = make.classifier(videomae, **fields).config
    model = videomae.VideoMAEForPreTraining(config)
    assert model(clips[:, :, :1], mask).loss.isfinite()


@row("`patch_size` may be (height, width)")
def test_patches_that_are_not_square(make, clips):
    fields = make.classifier(videomae).config.to_dict() | {"patch_size": (8, 16)}
    model = videomae.VideoMAEForPreTraining(videomae.VideoMAEConfig.from_dict(fields))
    mask = (torch.arange(16) % 4 > 0).expand(2, 16)
    assert model(clips, mask).logits.shape == (2, 12, 2 * 8 * 16 * 3)


@row("other frame counts and sizes")
def test_other_frame_counts(make, clips):
    twice = torch.cat([clips, clips], dim=1)
    assert make.classifier(videomae)(twice, interpolate_pos_encoding=True).logits.shape == (2, 3)
    with pytest.raises(RuntimeError):
        make.classifier(transformers)(twice)


@row('`attn_implementation="auto"` is the default')
def test_attention_is_auto(make):
    assert make.classifier(videomae).config._attn_implementation == "auto"
    assert make.classifier(transformers).config._attn_implementation == "sdpa"


@row("`output_attentions=True` gives weights")
def test_weights_of_attention(make, clips):
    model = make(videomae, "VideoMAEModel", attn_implementation="sdpa").eval()
    assert model(clips, output_attentions=True).attentions[0].shape == (2, 2, 32, 32)


@row("a third argument by position")
def test_head_mask_is_refused(make, clips):
    with pytest.raises(ConfigError, match="head_mask"):
        make(videomae, "VideoMAEModel")(clips, None, torch.ones(2))


@row("`config.dtype` is a name")
def test_dtype_of_a_config():
    assert videomae.VideoMAEConfig(dtype="float16").dtype == "float16"
    assert transformers.VideoMAEConfig(dtype="float16").dtype == torch.float16


@row("`VideoMAEConfig(hiden_size=96)` warns")
def test_misspelt_field():
    with pytest.warns(UserWarning, match="did you mean 'hidden_size'"):
        assert videomae.VideoMAEConfig(hiden_size=96).hiden_size == 96


@row("`model.decoder(...)` gives a tensor")
def test_decoder_gives_a_tensor(make):
    tokens = torch.randn(2, 32, 16)
    assert make.pretrainer(videomae).decoder(tokens, 24).shape == (2, 24, 384)
    assert make.pretrainer(transformers).decoder(tokens, 24).logits.shape == (2, 24, 384)


@row("modules without parameters stand beside")
def test_modules_without_parameters(make):
    theirs, ours = (dict(make.classifier(lib).named_modules()) for lib in (transformers, videomae))
    assert theirs.keys() < ours.keys()
    more = ours.keys() - theirs.keys()
    assert {name.rpartition(".")[2] for name in more} == {"drop_path", "dropout"}
    assert not [name for name in more if list(ours[name].parameters())]


@row("`config.to_diff_dict()` holds")
def test_what_differs_from_the_defaults():
    ours = videomae.VideoMAEConfig(hidden_size=96).to_diff_dict()
    assert ours == {"hidden_size": 96, "model_type": "videomae"}
    theirs = transformers.VideoMAEConfig(hidden_size=96).to_diff_dict()
    assert ours.keys() < theirs.keys()


@row("`add_adapter` is an error")
def test_add_adapter(make):
    with pytest.raises(ConfigError, match="get_peft_model"):
        make.classifier(videomae).add_adapter(object())


@row("a pipeline of transformers wants a model of transformers")
def test_pipeline_with_a_model_of_ours(make, frames, tmp_path):
    write_video(tmp_path / "clip.mp4", frames[0], fps=8)
    model, processor = make.classifier(videomae), make.processor(videomae)
    pipeline = transformers.pipeline(
        "video-classification", model=model, image_processor=processor, device="cpu"
    )
    with pytest.raises(AttributeError, match="logits"):  # test_others.py has the way round
        pipeline(str(tmp_path / "clip.mp4"))


@row("models are no `transformers.PreTrainedModel`")
def test_no_base_class_of_transformers(make, tmp_path):
    model = make.classifier(videomae)
    assert not isinstance(model, transformers.PreTrainedModel)
    model.save_pretrained(tmp_path)
    opened = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path)
    assert isinstance(opened, transformers.VideoMAEForVideoClassification)


@row("an unknown argument of `from_pretrained`")
def test_unknown_argument(make, tmp_path):
    make.classifier(videomae).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="num_labels"):
        videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path, num_label=3)


@row("`trust_remote_code` is accepted")
def test_remote_code_never_runs(make, tmp_path):
    make.classifier(videomae).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="never run"):
        videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path, trust_remote_code=True)


@row("`image_mean`, `image_std` default to ImageNet's")
def test_defaults_of_the_processor():
    assert list(videomae.VideoMAEImageProcessor().image_mean) == [0.485, 0.456, 0.406]
    assert list(transformers.VideoMAEImageProcessor().image_mean) == [0.5] * 3


@row("grey frames, 2-D frames")
def test_grey_frames(make, frames):
    grey = [frame[..., 0] for frame in frames[0]]
    assert make.processor(videomae)(grey, return_tensors="pt").pixel_values.shape[1] == 4


@row("a bare array (3, H, W)")
def test_bare_array(make):
    with pytest.raises(VideoMAEError):
        make.processor(videomae, "VideoMAEVideoProcessor")(np.zeros((3, 32, 32), np.uint8))


@row("`VideoMAEVideoProcessor` also takes bytes")
def test_bytes_of_a_file(make, frames, tmp_path):
    write_video(tmp_path / "clip.mp4", frames[0], fps=8)
    content = (tmp_path / "clip.mp4").read_bytes()
    processor = make.processor(videomae, "VideoMAEVideoProcessor")
    for video in (content, io.BytesIO(content), {"path": None, "bytes": content}):
        pixels = processor(video, return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 4, 3, 32, 32)


@row("addresses (`https://...`) are refused")
def test_addresses(make):
    with pytest.raises(VideoMAEError, match="download"):
        make.processor(videomae, "VideoMAEVideoProcessor")("https://example.org/clip.mp4")


@row("an unknown argument is an error")
def test_unknown_argument_of_a_processor(make, frames):
    with pytest.raises(ConfigError, match="do_resize"):
        make.processor(videomae)(list(frames[0]), do_rezise=True)


@row('`data_format="channels_last"` is an error')
def test_channels_last(make, frames):
    with pytest.raises(ConfigError, match="channels"):
        make.processor(videomae)(list(frames[0]), data_format="channels_last")


@row('`resample="lanczos"` where PyTorch has none')
def test_lanczos(make, frames):
    processor = make.processor(videomae)
    try:  # PyTorch has it from some release on
        pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
        torch.nn.functional.interpolate(pixels, (4, 4), mode="lanczos", antialias=True)
    except (NotImplementedError, ValueError, RuntimeError):
        with pytest.raises(ConfigError, match="lanczos"):
            processor(list(frames[0]), resample="lanczos", size={"shortest_edge": 40})
    else:
        processor(list(frames[0]), resample="lanczos", size={"shortest_edge": 40})


@row("`num_frames` or `fps` without")
def test_num_frames_without_sampling(make, frames):
    processor = make.processor(videomae, "VideoMAEVideoProcessor")
    with pytest.warns(UserWarning, match="do_sample_frames"):
        processor(frames[0], num_frames=2)


@row("warns when pixels do not look like 0 to 255")
def test_scaled_pixels(make, frames):
    with pytest.warns(UserWarning, match="do_rescale=False"):
        make.processor(videomae)([frame / 255.0 for frame in frames[0]])


@row("there is no `VideoMAEImageProcessorPil`")
def test_one_image_processor(make, tmp_path):
    assert not hasattr(videomae, "VideoMAEImageProcessorPil")
    make.processor(videomae).save_pretrained(tmp_path)
    for choice in ({"use_fast": False}, {"use_fast": True}, {"backend": "pil"}):
        videomae.VideoMAEImageProcessor.from_pretrained(tmp_path, **choice)


@row("`backend`, `convert_to_rgb`, `pad`")
def test_machinery_of_processors(make):
    line = next(x for x in PAGE.read_text().splitlines() if x.startswith("| `backend`,"))
    for name in re.findall(r"`(\w+)`", line.split(" | ")[0]):
        assert not hasattr(make.processor(videomae), name)
        assert not hasattr(make.processor(videomae, "VideoMAEVideoProcessor"), name)


@row("`save_pretrained` writes one file")
def test_one_file_or_shards(make, tmp_path):
    make.classifier(videomae).save_pretrained(tmp_path / "one")
    make.classifier(videomae).save_pretrained(tmp_path / "many", max_shard_size="60KB")
    assert len([*(tmp_path / "one").glob("*.safetensors")]) == 1
    assert len([*(tmp_path / "many").glob("*.safetensors")]) > 1


@row("`safe_serialization=False` and")
@pytest.mark.parametrize(
    "argument", [{"safe_serialization": False}, {"distributed_checkpoint": True}], ids=str
)
def test_no_pickle(make, tmp_path, argument):
    with pytest.raises(ConfigError):
        make.classifier(videomae).save_pretrained(tmp_path, **argument)


@row("`save_pretrained(state_dict=...)` refuses")
def test_strange_state(make, tmp_path):
    with pytest.raises(WeightsError, match="does not know"):
        make.classifier(videomae).save_pretrained(tmp_path, state_dict={"x": torch.ones(1)})


@row("saving removes the weights that an earlier save left")
def test_earlier_weights_are_removed(make, tmp_path):
    make.classifier(videomae).save_pretrained(tmp_path, max_shard_size="60KB")
    make.classifier(videomae).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]


@row("`from_pretrained(quantization_config=")
@pytest.mark.parametrize("name", ["quantization_config", "gguf_file", "tp_plan", "key_mapping"])
def test_unsupported_arguments(make, tmp_path, name):
    make.classifier(videomae).save_pretrained(tmp_path)
    opened = videomae.VideoMAEForVideoClassification.from_pretrained
    opened(tmp_path, **{name: None})
    with pytest.raises(ConfigError, match=name):
        opened(tmp_path, **{name: "something"})


@row("`load_state_dict` takes the names of files too")
def test_names_of_files(make, tmp_path):
    model = make.classifier(videomae)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert any(name.endswith("q_bias") for name in state)
    model.load_state_dict(state)
    with pytest.raises(RuntimeError, match="q_bias"):
        make.classifier(transformers).load_state_dict(state)


@row("transformers' `Trainer` saves weights alone")
def test_config_beside_the_weights_of_trainer(make, tmp_path):
    rows = [{"pixel_values": torch.zeros(4, 3, 32, 32), "labels": 0}]
    for name, callbacks in (("with", [videomae.SaveConfigCallback()]), ("without", [])):
        arguments = transformers.TrainingArguments(
            tmp_path / name, max_steps=1, report_to="none", use_cpu=True, disable_tqdm=True
        )
        model = make.classifier(videomae)
        transformers.Trainer(model, arguments, train_dataset=rows, callbacks=callbacks).train()
    assert (tmp_path / "with" / "checkpoint-1" / "config.json").exists()
    assert not (tmp_path / "without" / "checkpoint-1" / "config.json").exists()


@row("accelerate's `load_checkpoint_and_dispatch`")
def test_dispatch_by_the_names_of_the_model(make, clips, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="needs the extra train")
    model = make.classifier(videomae).eval()
    with accelerate.init_empty_weights():
        empty = type(model)(model.config)
    model.save_pretrained(tmp_path, save_original_format=False)
    parts = {"videomae.embeddings": "disk", "videomae.encoder": "cpu"}
    parts |= dict.fromkeys(("fc_norm", "dropout", "classifier"), "cpu")
    loaded = accelerate.load_checkpoint_and_dispatch(
        empty, str(tmp_path), device_map=parts, offload_folder=str(tmp_path / "offload")
    )
    torch.testing.assert_close(loaded.eval()(clips).logits, model(clips).logits)
