"""Pair the tensors of a checkpoint with those of a model: all of them, or an error that says why.

A model must come out as it was trained, or say what in it is new.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videomae.config import VideoMAEConfig
from videomae.errors import ShapeError, WeightsError
from videomae.weights.checkpoint import Checkpoint
from videomae.weights.keys import some


@dataclass(frozen=True)
class LoadReport(Mapping[str, Any]):
    """How each tensor of a checkpoint and of a model fared; `print(report)` shows it briefly.

    missing: tensors of the model that the checkpoint lacks. reshaped: those it has in another
    shape, as (name, its shape, the model's shape). unused: those this class of model has no place
    for. unexpected: those no VideoMAE has. left_out: those of an image MAE that mean nothing here.
    As a mapping it is the loading info of transformers: `report["missing_keys"]`.
    """

    source: str
    scheme: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def newly_initialised(self) -> tuple[str, ...]:
        return (*self.missing, *(name for name, _, _ in self.reshaped))

    def __getitem__(self, key: str) -> Any:
        return {
            "missing_keys": set(self.missing),
            "unexpected_keys": {*self.unused, *self.unexpected, *self.left_out},
            "mismatched_keys": set(self.reshaped),
            "error_msgs": [],
        }[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))

    def __len__(self) -> int:
        return 4

    def __str__(self) -> str:
        groups = {
            "newly initialised": self.newly_initialised,
            "not used by this model": self.unused,
            "unexpected": self.unexpected,
            "of images, left out": self.left_out,
        }
        lines = [
            f"{self.source} ({self.scheme}): {len(self.loaded)} tensors loaded",
            *(f"{what} ({len(names)}): {some(names)}" for what, names in groups.items() if names),
            *(f"{name}: file {was}, model {now}" for name, was, now in self.reshaped),
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n  ".join(lines)


_HEAD = r"(classifier|fc_norm)\."
_DECODER = r"decoder\.|mask_token|encoder_to_decoder"
_BIASES = r".*attention\.(query|value)\.bias$"
_ENCODER_NORM, _POOLED_NORM = r"videomae\.layernorm\.", r"fc_norm\."


def match(
    wanted: Mapping[str, tuple[int, ...]],
    checkpoint: Checkpoint,
    *,
    model_name: str,
    config: VideoMAEConfig,
    ignore_mismatched_sizes: bool = False,
    may_lose_norm: bool = False,
    added: Collection[str] = (),
    notes: Sequence[str] = (),
) -> LoadReport:
    """Pair the tensors of a checkpoint with those a model wants, by name (ours) and shape.

    `may_lose_norm` permits to drop the final norm; `added` are tensors of the caller's own class,
    which start fresh where the checkpoint has none. Raises WeightsError for all else that would
    leave the model other than it was trained, a ShapeError for other shapes.
    """
    source, state = checkpoint.source, checkpoint.state
    missing = [key for key in wanted if key not in state]
    surplus = [key for key in state if key not in wanted]
    found = [(key, tuple(state[key].shape), wanted[key]) for key in wanted if key in state]
    reshaped = [(key, was, now) for key, was, now in found if was != now]
    has_decoder, has_head = "mask_token" in wanted, bool(_matching(_HEAD, wanted))

    def refuse(
        keys: list[str], problem: str, fix: str, error: type[WeightsError] = WeightsError
    ) -> None:
        if keys:
            each = (
                f"{key} {tuple(state[key].shape) if key in state else wanted[key]}" for key in keys
            )
            differ = _differences(checkpoint.facts, config, with_decoder=has_decoder)
            raise error("; ".join([f"{source} {problem}: {some(each)}", *differ, fix]))

    if has_decoder and not (checkpoint.has_decoder or checkpoint.of_images):
        raise WeightsError(
            f"{source} has no decoder (encoder_to_decoder, mask_token, decoder.*), and "
            f"{model_name} needs one; take a pre-training checkpoint, such as "
            "MCG-NJU/videomae-base or a .pth of the original pre-training code"
        )

    if not _matching(_BIASES, state):
        fix = (
            "early transformers 5 releases dropped them in silence: get the original file, or if "
            "the model was trained without, pass qv_bias=False"
        )
        refuse(_matching(_BIASES, missing), "has lost the biases of q and v", fix)
    if not _matching(_BIASES, wanted):
        problem = "has biases of q and v that qv_bias=False would lose"
        refuse(_matching(_BIASES, surplus), problem, "pass qv_bias=True")

    # A head that is nowhere in the checkpoint starts fresh, its norm with it; so does a decoder
    # after images.
    fresh = [] if checkpoint.has_classifier else _matching(_HEAD, missing)
    fresh += _matching(_DECODER, missing) if checkpoint.of_images else []
    lacking = [key for key in missing if key not in fresh and key not in added]

    with_pooling = f"with use_mean_pooling={config.use_mean_pooling}"
    fix = f"pass use_mean_pooling={not config.use_mean_pooling}"
    norms = _matching(f"{_ENCODER_NORM}|{_POOLED_NORM}", lacking)
    refuse(norms, f"lacks the final norm that {model_name} needs {with_pooling}", fix)
    lost = _matching(_POOLED_NORM, surplus) if has_head else []
    # A classifier that starts fresh leaves the encoder's norm, as in the published fine-tuning.
    if not has_head or checkpoint.has_classifier:
        lost += _matching(_ENCODER_NORM, surplus)
    if not may_lose_norm:
        refuse(lost, f"has a final norm that {model_name} would lose {with_pooling}", fix)

    fix = "pass a config= or overrides that fit the file"
    refuse(lacking, f"lacks {len(lacking)} tensors that {model_name} needs", fix)
    extra = _matching(r"videomae\.(?!layernorm)", surplus)
    extra += _matching(_DECODER, surplus) if has_decoder else []
    refuse(extra, f"has {len(extra)} tensors that {model_name} has no place for", fix)

    refused = [key for key, _, _ in reshaped]
    if _matching(r"classifier\.", refused) == refused:
        fix = "pass ignore_mismatched_sizes=True to start the head anew"
    if ignore_mismatched_sizes:  # but a model whose layers do not fit is another model
        refused = _matching(r".*\.(layer|decoder_layers)\.\d", refused)
    differ = ", ".join(f"{key} is {a} there, {b} in {model_name}" for key, a, b in reshaped[:3])
    problem = f"has {len(refused)} tensors of another shape ({differ})"
    refuse(refused, problem, fix, error=ShapeError)
    return LoadReport(
        source=source,
        scheme=checkpoint.scheme,
        loaded=tuple(key for key, was, now in found if was == now),
        missing=tuple(missing),
        unexpected=checkpoint.unexpected,
        reshaped=tuple(reshaped),
        unused=tuple(surplus),
        notes=tuple(notes),
        left_out=checkpoint.left_out,
    )


def _differences(
    facts: Mapping[str, Any], config: VideoMAEConfig, *, with_decoder: bool
) -> Iterator[str]:
    for field, value in facts.items():
        if field in ("num_labels", "use_mean_pooling", "image_size", "num_frames"):
            continue
        if value != getattr(config, field) and (with_decoder or not field.startswith("decoder_")):
            yield f"{field} is {value} in the file and {getattr(config, field)} in the config"


def _matching(pattern: str, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if re.match(pattern, key)]
