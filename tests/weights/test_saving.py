"""What is written: whole files, the right weights, from one process, under names all can read."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import pytest
import safetensors.torch
import torch
import transformers
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from videomae import hub
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, ShapeError, WeightsError
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from videomae.weights.saving import SaveConfigCallback

SIZES: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 2,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 24,
    "decoder_hidden_size": 12,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 24,
}


def model(kind: Any = VideoMAEForVideoClassification, **fields: Any) -> Any:
    made = kind(VideoMAEConfig(**SIZES, **fields))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made.eval()


def assert_same(one: Any, other: Any) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for key in mine:
        assert torch.equal(mine[key], theirs[key]), key


def reopened(folder: Path, **arguments: Any) -> Any:
    return VideoMAEForVideoClassification.from_pretrained(folder, **arguments)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_save_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model().save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(*args: Any, **_: Any) -> None:
        Path(args[1]).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", broken)
    with pytest.raises(OSError, match="No space left"):
        model(VideoMAEForPreTraining).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_pickles_are_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only safetensors is written"):
        model(VideoMAEModel).save_pretrained(tmp_path, safe_serialization=False)


def test_saving_leaves_the_models_own_config_alone(tmp_path: Path) -> None:
    small = model(VideoMAEModel)
    small.save_pretrained(tmp_path, max_shard_size="5GB")
    assert small.config.architectures is None
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["VideoMAEModel"]


def test_pushing_uploads_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[Any] = []

    def push(folder: Any, repo_id: str, **options: Any) -> str:
        pushed.append((repo_id, sorted(p.name for p in Path(folder).iterdir()), options))
        return "https://commit"

    monkeypatch.setattr(hub, "push_folder", push)
    small = model(VideoMAEModel)
    assert small.push_to_hub("me/model", private=True, token="t") == "https://commit"
    small.save_pretrained(tmp_path / "named", push_to_hub=True, commit_message="hello")
    files = ["config.json", "model.safetensors"]
    assert pushed == [
        ("me/model", files, {"private": True, "token": "t"}),
        ("named", files, {"commit_message": "hello"}),
    ]


# The arguments of transformers


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "a", is_main_process=False, push_to_hub=True)
    assert not (tmp_path / "a").exists()


def test_the_pattern_of_accelerate_writes_the_weights_it_gathered(tmp_path: Path) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    prepared = accelerator.prepare(model())
    gathered = {key: value + 1 for key, value in accelerator.get_state_dict(prepared).items()}
    accelerator.unwrap_model(prepared).save_pretrained(
        tmp_path,
        is_main_process=accelerator.is_main_process,
        save_function=accelerator.save,
        state_dict=gathered,
    )
    again = reopened(tmp_path).state_dict()
    assert all(torch.equal(again[key], value) for key, value in gathered.items())
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in gathered.items())


def test_the_dtype_is_that_of_the_weights_written(tmp_path: Path) -> None:
    small = model()
    state = {key: value.bfloat16() for key, value in small.state_dict().items()}
    small.save_pretrained(tmp_path, state_dict=state)
    assert reopened(tmp_path).dtype == torch.bfloat16


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    small = model()
    own = small.state_dict()
    wrapped = {f"module.{key}": value for key, value in own.items()}
    for state, problem in ((wrapped, r"has tensors .* know: module\."), ({}, "is empty")):
        with pytest.raises(WeightsError, match=f"state_dict {problem}.*; pass accelerator"):
            small.save_pretrained(tmp_path, state_dict=state)
    longer = {**own, "classifier.bias": torch.zeros(5)}
    with pytest.raises(ShapeError, match=r"classifier\.bias as \(5,\), expected \(2,\)"):
        small.save_pretrained(tmp_path, state_dict=longer)
    assert files(tmp_path) == []


def test_a_part_of_a_model_is_saved_with_a_warning(tmp_path: Path) -> None:
    small = model()
    part = {k: v for k, v in small.state_dict().items() if not k.startswith("classifier")}
    with pytest.warns(UserWarning, match="state_dict lacks 2 tensors .*classifier") as caught:
        small.save_pretrained(tmp_path, state_dict=part)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="newly initialised, to be trained: classifier"):
        again = reopened(tmp_path)
    assert torch.equal(again.fc_norm.weight, small.fc_norm.weight)


def test_a_sharded_model_says_how_it_is_saved(tmp_path: Path) -> None:
    init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        sharded = fully_shard(model(), mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(WeightsError, match=r"spread over processes: .*get_state_dict\(model\)"):
            sharded.save_pretrained(tmp_path)
        whole = {key: value.full_tensor() for key, value in sharded.state_dict().items()}
        sharded.save_pretrained(tmp_path, state_dict=whole)
    finally:
        destroy_process_group()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["VideoMAEForVideoClassification"]
    again = reopened(tmp_path).state_dict()
    assert all(torch.equal(again[key], value) for key, value in whole.items())


def test_a_variant_has_its_name_in_the_file(tmp_path: Path) -> None:
    small = model()
    small.save_pretrained(tmp_path, variant="fp16")
    assert files(tmp_path) == ["config.json", "model.fp16.safetensors"]
    assert_same(reopened(tmp_path, variant="fp16"), small)
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path, variant="fp16")
    assert_same(small, theirs)
    with pytest.raises(WeightsError, match=r"looked for model\.safetensors"):
        reopened(tmp_path)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_large_models_are_saved_in_shards(variant: str | None, tmp_path: Path) -> None:
    small, name = model(), f"model.{variant}" if variant else "model"
    small.save_pretrained(tmp_path, variant=variant)
    small.save_pretrained(tmp_path, max_shard_size="6KB", variant=variant)
    shards = [file for file in files(tmp_path) if file.startswith(f"{name}-")]
    assert len(shards) == 2
    index = f"model.safetensors.index{f'.{variant}' if variant else ''}.json"
    assert files(tmp_path) == sorted(["config.json", index, *shards])  # the whole file is gone
    assert_same(reopened(tmp_path, variant=variant), small)
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path, variant=variant)
    assert_same(small, theirs)
    # and whole again, without shards of before
    other = model()
    other.save_pretrained(tmp_path, variant=variant)
    assert files(tmp_path) == sorted(["config.json", f"{name}.safetensors"])
    assert_same(reopened(tmp_path, variant=variant), other)


def test_a_size_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_shard_size='big' is no size; expected bytes"):
        model().save_pretrained(tmp_path, max_shard_size="big")


def test_biases_can_have_the_names_of_the_model(tmp_path: Path) -> None:
    """As accelerate's `load_checkpoint_and_dispatch` looks for them in the file."""
    small = model()
    small.save_pretrained(tmp_path, save_original_format=False)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == small.state_dict().keys()
    assert_same(reopened(tmp_path), small)
    with accelerate.init_empty_weights():
        empty = VideoMAEForVideoClassification(small.config)
    loaded = accelerate.load_checkpoint_and_dispatch(empty, tmp_path, device_map={"": "cpu"})
    assert_same(loaded, small)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(ConfigError, match="is a file, and a model is saved as a folder; name one"):
        model().save_pretrained(tmp_path / "x")


def test_pieces_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"write pieces with torch\.distributed\.checkpoint"):
        model().save_pretrained(tmp_path, distributed_checkpoint=True)


def test_an_unknown_argument_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="stat_dict"):
        model().save_pretrained(tmp_path, stat_dict={})


# transformers' Trainer


def test_trainers_checkpoints_get_a_config(tmp_path: Path) -> None:
    """Trainer writes weights alone for models that are not its own."""
    small = model(id2label={0: "a", 1: "b", 2: "c"}, position_grid=(1, 2, 2))
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=2,
        save_steps=1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        per_device_train_batch_size=2,
    )
    clip = {"pixel_values": torch.randn(2, 3, 16, 16), "labels": 1}
    trainer = transformers.Trainer(
        small, arguments, train_dataset=[clip] * 4, callbacks=[SaveConfigCallback()]
    )
    trainer.train()
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-2"):
        again = reopened(folder)
        assert again.config.id2label == {0: "a", 1: "b", 2: "c"}
        assert_same(again, small)
        theirs = transformers.VideoMAEForVideoClassification.from_pretrained(folder)
        assert_same(small, theirs)
    assert reopened(tmp_path / "checkpoint-1").config.architectures == [type(small).__name__]


def test_weights_without_a_config_say_what_is_not_known(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.warns(
        UserWarning, match=r"there is no config\.json, .* classes have no names; pass"
    ):
        VideoMAEForVideoClassification.from_pretrained(tmp_path, num_attention_heads=3)


def test_the_callback_leaves_other_processes_adapters_and_events_alone(tmp_path: Path) -> None:
    callback = SaveConfigCallback()
    arguments = SimpleNamespace(should_save=False, output_dir=str(tmp_path))
    callback.on_train_end(arguments, None, None, model=model())
    arguments.should_save = True
    callback.on_train_end(arguments, None, None, model=SimpleNamespace(peft_config={}))
    callback.on_step_begin(arguments, None, None)
    assert files(tmp_path) == []
    with pytest.raises(AttributeError, match="state"):
        _ = callback.state
