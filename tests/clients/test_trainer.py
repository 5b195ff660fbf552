"""The Trainer of transformers, used as the published guide to video classification uses it."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import videomae

transformers = pytest.importorskip("transformers", reason="needs the extra clients")


class Clips(torch.utils.data.Dataset):
    """Rendered clips by the processor of a library, with a label or with a mask."""

    def __init__(self, processor: Any, frames: list[Any], mask: torch.Tensor | None = None) -> None:
        self.rows = [
            {"pixel_values": processor(list(clip), return_tensors="pt").pixel_values[0]}
            | ({"labels": index % 3} if mask is None else {"bool_masked_pos": mask})
            for index, clip in enumerate(frames)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def accuracy(predicted: Any) -> dict[str, float]:
    classes = np.argmax(predicted.predictions, axis=1)
    return {"accuracy": float((classes == predicted.label_ids).mean())}


def trainer_of(model: Any, folder: Path, data: Clips, processor: Any, **arguments: Any) -> Any:
    settings: dict[str, Any] = {
        "remove_unused_columns": False,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "warmup_steps": 1,
        "logging_steps": 1,
        "num_train_epochs": 3,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    with_labels = "labels" in data[0]
    return transformers.Trainer(
        model,
        transformers.TrainingArguments(folder, **settings | arguments),
        train_dataset=data,
        eval_dataset=data,
        processing_class=processor,
        compute_metrics=accuracy if with_labels else None,
    )


def losses(trainer: Any) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def both(run: Any) -> tuple[Any, Any]:
    """The same run with the classes of transformers, and with ours."""
    return run(transformers), run(videomae)


def test_the_guide_from_training_to_both_libraries(make, frames, tmp_path):
    def run(library: ModuleType) -> Any:
        processor = make.processor(library)
        folder = tmp_path / library.__name__
        trainer = trainer_of(
            make.classifier(library),
            folder,
            Clips(processor, frames),
            processor,
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
        )
        if library is videomae:  # Trainer writes a config for models of its own library alone
            trainer.add_callback(videomae.SaveConfigCallback())
        trainer.train()
        return trainer

    theirs, ours = both(run)
    assert len(losses(ours)) == 9
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-4)
    assert losses(ours)[-1] < losses(ours)[0]
    figures, expected = ours.evaluate(), theirs.evaluate()
    assert figures["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-3)
    assert figures["eval_accuracy"] == expected["eval_accuracy"]
    assert ours.state.best_metric == theirs.state.best_metric
    predicted = ours.predict(ours.eval_dataset)
    assert predicted.predictions.shape == (12, 3)
    # Theirs loads its best checkpoint without the biases of queries and values, whose names differ
    # there (it warns), and keeps those of the last step.
    np.testing.assert_allclose(
        predicted.predictions, theirs.predict(theirs.eval_dataset).predictions, atol=1e-2
    )

    ours.save_model(tmp_path / "saved")
    ours.model.config.save_pretrained(tmp_path / "saved")
    clip = ours.eval_dataset[0]["pixel_values"][None]
    for library in (videomae, transformers):
        opened = library.VideoMAEForVideoClassification.from_pretrained(tmp_path / "saved")
        assert opened.config.id2label == {0: "throw", 1: "walk", 2: "open_door"}
        assert not opened.training
        torch.testing.assert_close(opened(clip).logits, ours.model.eval()(clip).logits)
        library.VideoMAEImageProcessor.from_pretrained(tmp_path / "saved")
        best = library.VideoMAEForVideoClassification.from_pretrained(
            ours.state.best_model_checkpoint
        )
        torch.testing.assert_close(best(clip).logits, opened(clip).logits)


def test_resume_goes_on_where_a_run_was_stopped(make, frames, tmp_path):
    processor = make.processor(videomae)
    data = Clips(processor, frames)
    whole = trainer_of(make.classifier(videomae), tmp_path / "whole", data, processor)
    whole.train()
    first = trainer_of(make.classifier(videomae), tmp_path / "parts", data, processor)
    first.add_callback(StopAfter(6))
    first.train()
    assert first.state.global_step == 6
    second = trainer_of(make.classifier(videomae), tmp_path / "parts", data, processor)
    second.train(resume_from_checkpoint=True)
    assert losses(second)[:6] == losses(first)
    assert losses(second) == pytest.approx(losses(whole), rel=1e-3)


class StopAfter(transformers.TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize(
    "arguments",
    [
        {"label_smoothing_factor": 0.1},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"gradient_accumulation_steps": 2, "bf16": True},
    ],
    ids=str,
)
def test_settings_of_the_trainer_have_the_same_effect(make, frames, tmp_path, arguments):
    def run(library: ModuleType) -> Any:
        processor = make.processor(library)
        folder = tmp_path / library.__name__
        data = Clips(processor, frames)
        trainer = trainer_of(make.classifier(library), folder, data, processor, **arguments)
        trainer.train()
        return losses(trainer), trainer.evaluate(), trainer.predict(data).predictions.shape

    theirs, ours = both(run)
    close = 2e-2 if "bf16" in arguments else 1e-4
    assert ours[0] == pytest.approx(theirs[0], rel=close)
    assert ours[1]["eval_loss"] == pytest.approx(theirs[1]["eval_loss"], rel=5 * close)
    assert ours[2] == theirs[2] == (12, 3)


def test_pretraining_without_labels_evaluates_too(make, frames, clips, mask, tmp_path):
    def run(library: ModuleType) -> Any:
        processor = make.processor(library)
        data = Clips(processor, frames, mask[0])
        folder = tmp_path / library.__name__
        trainer = trainer_of(make.pretrainer(library), folder, data, processor)
        trainer.train()
        assert "eval_loss" not in trainer.evaluate()
        trainer.save_model(folder)
        trainer.model.config.save_pretrained(folder)
        named = trainer_of(trainer.model, folder, data, processor, label_names=["bool_masked_pos"])
        return losses(trainer), named.evaluate()["eval_loss"]

    theirs, ours = both(run)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-3)
    assert ours[1] == pytest.approx(theirs[1], rel=1e-3)
    opened = [
        library.VideoMAEForPreTraining.from_pretrained(tmp_path / "videomae")(clips, mask)
        for library in (transformers, videomae)
    ]
    torch.testing.assert_close(opened[0].logits, opened[1].logits)
    torch.testing.assert_close(opened[0].loss, opened[1].loss)
