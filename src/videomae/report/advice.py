"""What to change about a run that has learned nothing: for its page, and for its last words."""

import math
from typing import Any

from videomae.errors import counted
from videomae.report.html import figure
from videomae.report.record import RunRecord

# So near to the loss of predicting nothing, a model has learned nothing but the even grey.
_PLATEAU = 0.97
# Fewer steps than these teach even a small model little.
_FEW_STEPS = 2000


def advice(run: RunRecord) -> str:
    """What was reached, beside what needs no learning, and what to change; "" where all is well.

    Silent in the first half of a run, which may well begin on a plateau.
    """
    if not run.num_steps or run.step < run.num_steps / 2:
        return ""
    return _of_pretraining(run) if run.command == "pretrain" else _of_finetuning(run)


def _of_pretraining(run: RunRecord) -> str:
    loss, baseline = run.loss, run.facts.get("baseline_loss")
    if loss is None or baseline is None or loss < _PLATEAU * baseline:
        return ""
    lowest = min(row["loss"] for row in run.reports if row.get("loss") is not None)
    said = f"The loss is {figure(loss)}, and that of predicting nothing {figure(baseline)}: "
    if lowest < _PLATEAU * baseline:
        return f"{said}it has risen again from {figure(lowest)}. {_lower_lr(run)}"
    return f"{said}the model has learned nothing yet. {_more(run)}"


def _of_finetuning(run: RunRecord) -> str:
    last = run.evaluations[-1] if run.evaluations else run.results
    top1, count = last.get("top1"), run.facts.get("num_held_out")
    classes = run.facts.get("num_classes")
    if top1 is None or not classes or not count:
        return ""
    chance = 1 / classes
    # What guessing reaches by luck: two standard deviations above chance, in 39 of 40 cases.
    by_luck = chance + 2 * math.sqrt(chance * (1 - chance) / count)
    if top1 / 100 > by_luck:
        return ""
    said = (
        f"Top-1 is {top1:.1f} % on {counted(count, 'video')}, and guessing one of {classes} "
        f"classes reaches {100 * chance:.1f} %: "
    )
    loss, baseline = run.loss, run.facts.get("baseline_loss")
    init = "" if run.settings.get("init") else " Or start from a pre-trained model with --init."
    if loss is not None and baseline is not None and loss < 0.5 * baseline:
        trained = f"the videos it was trained on (loss {figure(loss)})"
        said += f"the model knows {trained}, and no others."
        change = "Train on more videos of each class, with fewer --epochs."
    else:
        said += "the model has learned nothing yet."
        change = _more(run)
    if run.settings.get("train_only") == "head":  # it has neither epochs nor a learning rate
        return f"{said} Train all layers: leave out --train-only head. More videos help, too."
    return f"{said} {change}{init}"


def _more(run: RunRecord) -> str:
    """More steps where there were few, then a higher learning rate."""
    higher = f"a higher --lr{_peak(run)}"
    if run.step >= _FEW_STEPS:
        return f"Try {higher}."
    return (
        f"Make more steps than {run.step:,}: more --epochs, or leave --epochs and --batch-size to "
        f"the default, which goes by the size of the data. Then try {higher}."
    )


def _lower_lr(run: RunRecord) -> str:
    return f"Lower --lr{_peak(run)}, or pass --clip-grad 1."


def _peak(run: RunRecord) -> str:
    rates: list[Any] = [row["lr"] for row in run.reports if row.get("lr") is not None]
    return f" (its peak was {max(rates):.1e})" if rates else ""
