"""The model card of a trained model: what it is, how it came about, how to use it.

A README.md as the model hub reads it, made from `templates/card.md.jinja`. Of the machine it was
trained on it shows no path but the last part of what the user gave.
"""

import math
import re
from collections.abc import Mapping, Sized
from html import escape
from pathlib import Path
from typing import Any, Protocol

from videomae.errors import one_line
from videomae.hub import local_path, resolve_shipped
from videomae.masking import MASKS, hidden_share
from videomae.report.html import render
from videomae.settings import FinetuneSettings, PretrainSettings, TrainSettings
from videomae.version import __version__
from videomae.weights.pretrained import PretrainedModel

# What an evaluation measures, in words; the first one a model has is the one it is judged by.
FIGURE_NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class": "mean class accuracy",
    "mean_ap": "mean average precision",
    "mae": "mean absolute error",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "r2": "R2",
}
PERCENT = ("top1", "top5", "mean_class", "mean_ap")

# Whose weights on the hub are CC BY-NC 4.0, and so is what is made from them.
_NON_COMMERCIAL_OWNERS = ("MCG-NJU", "OpenGVLab")
_TASK = "video-classification"


class Evaluated(Protocol):
    """What a card shows of an evaluation; `evaluate.Evaluation` is one."""

    @property
    def num_videos(self) -> int: ...

    @property
    def num_views(self) -> int: ...

    @property
    def per_class(self) -> Mapping[str, float]: ...

    @property
    def bad(self) -> Sized: ...

    def figures(self) -> Mapping[str, float]: ...


def model_card(
    settings: TrainSettings, model: PretrainedModel, evaluation: Evaluated | None = None
) -> str:
    """The README.md of a trained model, with what it reached where it was evaluated."""
    from huggingface_hub import EvalResult, ModelCardData

    problem = settings.problem if isinstance(settings, FinetuneSettings) else None
    eval_data = settings.eval_data if isinstance(settings, FinetuneSettings) else None
    found = {} if evaluation is None else evaluation.figures()
    figures = {key: found[key] for key in FIGURE_NAMES if math.isfinite(found.get(key, math.nan))}
    data, eval_name = _name(settings.data), _name(eval_data or settings.data)
    made_from, licence, base_model = origin(settings.init)
    about: dict[str, Any] = {"tags": ["videomae", "video"]}
    if problem is None:
        about["tags"].append("masked-autoencoder")
    elif problem != "regression":  # the hub has no task of this kind
        about["pipeline_tag"] = _TASK
    if shares := {key: value for key, value in figures.items() if key in PERCENT}:
        metric = "mAP" if "mean_ap" in shares else "accuracy"
        results = [
            EvalResult(
                task_type=_TASK,
                dataset_type=eval_name,
                dataset_name=eval_name,
                metric_type=metric,
                metric_name=FIGURE_NAMES[key],
                metric_value=round(value / 100, 4),
            )
            for key, value in shares.items()
        ]
        name = _name(settings.output)
        about |= {"metrics": [metric], "model_name": name, "eval_results": results}
    card_data = ModelCardData(
        library_name="transformers", license=licence, base_model=base_model, **about
    )
    encoder = model.get_submodule("videomae").parameters()
    return render(
        "card.md.jinja",
        card_data=card_data.to_yaml(),
        config=model.config,
        settings=settings,
        hidden_share=_hidden_share(settings, model),
        problem=problem,
        data=data,
        eval_data=eval_name,
        evaluation=evaluation,
        figures={
            FIGURE_NAMES[key]: f"{value:.1f} %" if key in PERCENT else f"{value:.4g}"
            for key, value in figures.items()
        },
        millions=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        encoder_millions=sum(parameter.numel() for parameter in encoder) / 1e6,
        made_from=made_from,
        licence=licence,
        version=__version__,
        text=_text,
    )


def _hidden_share(settings: TrainSettings, model: PretrainedModel) -> float:
    """The share of a clip that was hidden in pre-training, of whole cells or tubelets; 0: none."""
    if not isinstance(settings, PretrainSettings):
        return 0.0
    if settings.mask not in MASKS or not settings.mask_ratio:  # not decided
        return settings.mask_ratio
    return hidden_share(settings.mask, model.config.grid, settings.mask_ratio)


def origin(init: str | None) -> tuple[str, str | None, str | None]:
    """What a model started from: its name, the licence it imposes if known, its id on the hub."""
    if init is None:
        return "", None, None
    if resolve_shipped(init) is not None:
        return init, "apache-2.0", None
    path = local_path(init)
    is_id = re.fullmatch(r"\w[\w.-]*/[\w.-]+", init) and not path.exists()
    if is_id and not init.endswith((".safetensors", ".pth", ".pt", ".bin")):
        is_known = init.split("/")[0] in _NON_COMMERCIAL_OWNERS
        return init, "cc-by-nc-4.0" if is_known else None, init
    parts = [part for part in Path(init).parts if part not in ("/", "..", "~")]
    # Every run calls its models so; the name of the run says more.
    keep = 2 if parts[-1:] in (["model"], ["best"]) else 1
    name = one_line("/".join(parts[-keep:]))
    try:  # a model may be the grandchild of published ones
        front = (path / "README.md").read_text(encoding="utf-8").split("\n---", 1)[0]
    except (OSError, ValueError):
        return name, None, None
    found = re.search(r'^license: *"?([\w.-]+)"? *$', front, flags=re.MULTILINE)
    return name, found and found[1], None


def _name(path: Path) -> str:
    return one_line(path.absolute().name)


def _text(text: str) -> str:
    """Text that Markdown shows as it is."""
    # Within a word _ means nothing.
    special = r"([\\`*\[\]|#~]|(?<!\w)_|_(?!\w))"
    return re.sub(special, r"\\\1", escape(one_line(text), quote=False))
