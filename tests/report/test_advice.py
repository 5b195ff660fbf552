"""A run that learned nothing says so and what to change; others say nothing."""

from pathlib import Path
from typing import Any

from videomae.report.advice import advice
from videomae.report.record import RunRecord


def record(losses: list[float], settings: dict[str, Any], **values: Any) -> RunRecord:
    """A run of a hundred steps a loss, of as many steps as its facts say or as there are."""
    reports = [
        {"step": 100 * n, "loss": loss, "lr": 1e-4} for n, loss in enumerate(losses, start=1)
    ]
    facts = {"num_steps": 100 * len(losses), **values.pop("facts", {})}
    maps = ("environment", "results", "about", "per_class", "summary")
    lists = ("evaluations", "mistakes", "unreadable", "bad", "warnings")
    empty: dict[str, Any] = {**{name: {} for name in maps}, **{name: [] for name in lists}}
    return RunRecord(
        Path("run"), settings=settings, reports=reports, facts=facts, **(empty | values)
    )


def pretrained(*losses: float, **facts: Any) -> RunRecord:
    facts = {"baseline_loss": 0.992, **facts}
    return record(list(losses), {"mask_ratio": 0.9}, facts=facts)


def finetuned(*losses: float, top1: float, **settings: Any) -> RunRecord:
    facts = {"baseline_loss": 2.485, "num_classes": 12, "num_held_out": 240}
    evaluations = [{"epoch": 1, "score": top1, "top1": top1}]
    settings = {"layer_decay": 0.75, **settings}
    return record(list(losses), settings, facts=facts, evaluations=evaluations)


def test_pre_training_that_stays_at_the_plateau() -> None:
    assert advice(pretrained(1.3, 1.25, 1.218)) == (
        "The loss is 1.22, and that of predicting nothing 0.992: the model has learned nothing "
        "yet. Make more steps than 300: more --epochs, or leave --epochs and --batch-size to the "
        "default, which goes by the size of the data. Then try a higher --lr (its peak was "
        "1.0e-04)."
    )
    assert advice(pretrained(1.3, 0.98)) != ""
    long = pretrained(*[1.0] * 30)  # enough steps
    assert advice(long).endswith("nothing yet. Try a higher --lr (its peak was 1.0e-04).")


def test_pre_training_that_learns_or_has_just_begun() -> None:
    assert advice(pretrained(1.3, 0.9)) == ""
    assert advice(pretrained(1.3, 1.2, num_steps=1000)) == ""
    assert advice(pretrained(1.3, 1.2, baseline_loss=None)) == ""  # a run of an earlier version
    assert advice(record([], {"mask_ratio": 0.9})) == ""


def test_pre_training_that_falls_apart() -> None:
    assert advice(pretrained(1.3, 0.7, 1.1)).endswith(
        "it has risen again from 0.700. Lower --lr (its peak was 1.0e-04), or pass --clip-grad 1."
    )


def test_fine_tuning_at_chance() -> None:
    said = advice(finetuned(2.5, 2.48, top1=9.8))
    assert said.startswith(
        "Top-1 is 9.8 % on 240 videos, and guessing one of 12 classes reaches 8.3 %: the model has "
        "learned nothing yet. Make more steps than 200"
    )
    assert said.endswith("Or start from a pre-trained model with --init.")
    assert "--init" not in advice(finetuned(2.5, 2.48, top1=9.8, init="actions-tiny"))
    # 8.3 + 2 * 1.8: what luck gives, too
    assert advice(finetuned(2.5, 2.3, top1=11.8)) != ""
    assert advice(finetuned(2.5, 2.3, top1=12.1)) == ""


def test_fine_tuning_that_learned_its_own_videos_alone() -> None:
    said = advice(finetuned(2.5, 0.1, top1=9.8))
    assert "the model knows the videos it was trained on (loss 0.100), and no others." in said
    assert said.endswith("Or start from a pre-trained model with --init.")
    assert advice(finetuned(2.5, 0.1, top1=9.8, init="actions-tiny")).endswith("fewer --epochs.")


def test_a_head_has_no_epochs_to_change() -> None:
    for loss in (0.1, 2.4):
        said = advice(finetuned(loss, top1=9.8, init="actions-tiny", train_only="head"))
        assert "Train all layers: leave out --train-only head. More" in said
        assert "--epochs" not in said
        assert "--init" not in said
