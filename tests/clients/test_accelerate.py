"""accelerate: one process of a training, its states, and models too large for a device."""

import pytest
import torch

import videomae

accelerate = pytest.importorskip("accelerate", reason="needs the extra train")


@pytest.fixture
def accelerator():
    """A fresh one on the CPU."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    yield accelerate.Accelerator(cpu=True)
    AcceleratorState._reset_state(True)


def test_a_step_its_gathered_answers_and_its_state(make, clips, tmp_path, library, accelerator):
    labels = torch.tensor([0, 2])
    loader = torch.utils.data.DataLoader([*zip(clips, labels, strict=True)], batch_size=2)
    model = make.classifier(library)
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), lr=0.1), loader
    )
    for pixels, target in loader:
        output = model(pixel_values=pixels, labels=target)
        accelerator.backward(output.loss)
        optimizer.step()
    gathered = accelerator.gather_for_metrics(output)
    assert set(gathered) == {"loss", "logits"}
    torch.testing.assert_close(gathered["logits"], output.logits)
    accelerator.save_state(tmp_path)
    before = model(clips).logits
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    accelerator.load_state(tmp_path)
    torch.testing.assert_close(model(clips).logits, before)


def test_bfloat16_answers_come_back_in_float32(make, clips, library):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    model = accelerator.prepare(make.classifier(library))
    output = model(pixel_values=clips, output_hidden_states=True)
    assert output.logits.dtype == output.hidden_states[0].dtype == torch.float32
    AcceleratorState._reset_state(True)


def test_the_saving_pattern_of_sharded_training(make, tmp_path, library, accelerator):
    model = accelerator.prepare(make.classifier(library))
    whole = {name: value + 1 for name, value in accelerator.get_state_dict(model).items()}
    unwrapped = accelerator.unwrap_model(model)
    for folder, is_main in (("main", True), ("other", False)):
        unwrapped.save_pretrained(
            tmp_path / folder,
            is_main_process=is_main,
            save_function=accelerator.save,
            state_dict=whole,
        )
    assert not (tmp_path / "other" / "model.safetensors").exists()
    loaded = type(unwrapped).from_pretrained(tmp_path / "main")
    torch.testing.assert_close(loaded.classifier.weight, model.classifier.weight + 1)


@pytest.mark.parametrize("how", ["cpu_offload", "disk_offload", "dispatch", "load_and_dispatch"])
def test_parts_of_a_model_elsewhere(make, clips, tmp_path, library, accelerator, how):
    model = make.classifier(library).eval()
    expected = model(clips).logits
    parts = accelerate.infer_auto_device_map(
        model,
        max_memory={"cpu": 90_000, "disk": 10**9},
        no_split_module_classes=model._no_split_modules,
    )
    assert set(parts.values()) == {"cpu", "disk"}
    if how == "cpu_offload":
        model = accelerate.cpu_offload(model, "cpu")
    elif how == "disk_offload":
        model = accelerate.disk_offload(model, str(tmp_path), "cpu")
    elif how == "dispatch":
        model = accelerate.dispatch_model(
            model, parts, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True
        )
    else:
        accelerator.save_model(model, tmp_path / "saved")
        with accelerate.init_empty_weights():
            empty = type(model)(model.config)
        model = accelerate.load_checkpoint_and_dispatch(
            empty, str(tmp_path / "saved"), device_map=parts, offload_folder=str(tmp_path)
        ).eval()
    torch.testing.assert_close(model(clips).logits, expected)


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}])
def test_device_maps_of_from_pretrained(make, clips, tmp_path, device_map):
    model = make.classifier(videomae).eval()
    model.save_pretrained(tmp_path)
    loaded = videomae.VideoMAEForVideoClassification.from_pretrained(
        tmp_path, device_map=device_map
    )
    torch.testing.assert_close(loaded(clips).logits, model(clips).logits)
