"""Pair the tensors of a checkpoint with those of a model: all of them, or an error that says why.

A model must come out as it was trained, or say what in it is new.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videomae.config import VideoMAEConfig
from videomae.errors import WeightsError
from videomae.weights.checkpoint import Checkpoint
from videomae.weights.keys import State, some


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of a checkpoint and of a model. `print(report)` tells it briefly.

    `missing` are tensors of the model that the checkpoint lacks, `reshaped` those it has in another
    shape, as (name, its shape, the model's shape); both together are `newly_initialised`. `unused`
    are tensors this class of model has no place for (a decoder, for a classifier), `unexpected`
    those no VideoMAE has, `left_out` those of an image MAE that mean nothing to a VideoMAE. The
    keys of transformers' loading info work too: `report["missing_keys"]`.
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

    def __getitem__(self, key: str) -> list[Any]:
        of_transformers: dict[str, list[Any]] = {
            "missing_keys": list(self.missing),
            "unexpected_keys": [*self.unused, *self.unexpected, *self.left_out],
            "mismatched_keys": list(self.reshaped),
            "error_msgs": [],
        }
        return of_transformers[key]

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.scheme}): {len(self.loaded)} tensors loaded"]
        for what, names in (
            ("newly initialised", self.newly_initialised),
            ("not used by this model", self.unused),
            ("unexpected", self.unexpected),
            ("of images, left out", self.left_out),
        ):
            if names:
                lines.append(f"  {what} ({len(names)}): {some(names)}")
        lines += [f"  {name}: file {was}, model {now}" for name, was, now in self.reshaped]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class _Pairing:
    """The tensors a model wants beside those a checkpoint has, by our names."""

    model_name: str
    config: VideoMAEConfig
    wanted: Mapping[str, tuple[int, ...]]
    checkpoint: Checkpoint
    state: State

    @property
    def has_decoder(self) -> bool:
        return "mask_token" in self.wanted

    @property
    def has_head(self) -> bool:
        return bool(_matching(r"(classifier|fc_norm)\.", self.wanted))

    @property
    def missing(self) -> list[str]:
        return [key for key in self.wanted if key not in self.state]

    @property
    def surplus(self) -> list[str]:
        return [key for key in self.state if key not in self.wanted]

    @property
    def reshaped(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        both = (
            (key, self.state[key].shape, self.wanted[key])
            for key in self.wanted
            if key in self.state
        )
        return [(key, tuple(was), now) for key, was, now in both if tuple(was) != now]

    @property
    def starts_fresh(self) -> list[str]:
        """A head that is nowhere in the checkpoint, its norm with it; a decoder, after images."""
        fresh = []
        if not self.checkpoint.has_classifier:
            fresh += _matching(r"(classifier|fc_norm)\.", self.missing)
        if self.checkpoint.of_images:
            fresh += _matching(r"decoder\.|mask_token|encoder_to_decoder", self.missing)
        return fresh

    def refuse(self, problem: str, keys: list[str], mend: str) -> None:
        """Raise WeightsError if there are any such keys, with what explains them."""
        if not keys:
            return
        config = self.config
        shapes = (f"{key} {self.wanted.get(key) or tuple(self.state[key].shape)}" for key in keys)
        differ = [
            f"{field} is {value} in the file and {getattr(config, field)} in the config"
            for field, value in self.checkpoint.facts.items()
            if field not in ("num_labels", "use_mean_pooling", "image_size", "num_frames")
            and value != getattr(config, field)
            and (self.has_decoder or not field.startswith("decoder_"))
        ]
        problem = problem.format(
            count=len(keys), model=self.model_name, pooling=config.use_mean_pooling
        )
        reasons = [f"{self.checkpoint.source} {problem}: {some(shapes)}", *differ, mend]
        raise WeightsError("; ".join(reasons))


def match(
    wanted: Mapping[str, tuple[int, ...]],
    checkpoint: Checkpoint,
    *,
    model_name: str,
    config: VideoMAEConfig,
    state: State | None = None,
    ignore_mismatched_sizes: bool = False,
    may_lose_norm: bool = False,
    notes: Sequence[str] = (),
) -> LoadReport:
    """Pair the tensors of a checkpoint with those a model wants, by name (ours) and shape.

    Raises WeightsError for everything that would leave the model other than it was trained: lost
    biases of q and v, a lost final norm, lacking or surplus layers, wrong shapes. `state` stands in
    for the checkpoint's tensors; `may_lose_norm` permits to drop the final norm.
    """
    state = checkpoint.state if state is None else state
    pairing = _Pairing(model_name, config, wanted, checkpoint, state)
    _refuse_lost_decoder(pairing)
    _refuse_lost_biases(pairing)
    _refuse_lost_norm(pairing, may_lose_norm)
    fit = "pass a config= or overrides that fit the file"
    lacking = [key for key in pairing.missing if key not in pairing.starts_fresh]
    pairing.refuse("lacks {count} tensors that {model} needs", lacking, fit)
    parts = r"videomae\.(?!layernorm)"
    if pairing.has_decoder:
        parts += r"|decoder\.|mask_token|encoder_to_decoder"
    extra = _matching(parts, pairing.surplus)
    pairing.refuse("has {count} tensors that {model} has no place for", extra, fit)

    reshaped = pairing.reshaped
    refused = [key for key, _, _ in reshaped]
    if _matching(r"classifier\.", refused) == refused:
        fit = "pass ignore_mismatched_sizes=True to start the head anew"
    if ignore_mismatched_sizes:  # but a model whose layers do not fit is another model
        refused = _matching(r".*\.(layer|decoder_layers)\.\d", refused)
    shapes = ", ".join(
        f"{key} is {was} there, {now} in {{model}}" for key, was, now in reshaped[:3]
    )
    pairing.refuse(f"has {{count}} tensors of another shape ({shapes})", refused, fit)
    again = {key for key, _, _ in reshaped}
    return LoadReport(
        source=checkpoint.source,
        scheme=checkpoint.scheme,
        loaded=tuple(key for key in wanted if key in state and key not in again),
        missing=tuple(pairing.missing),
        unexpected=checkpoint.unexpected,
        reshaped=tuple(reshaped),
        unused=tuple(pairing.surplus),
        notes=tuple(notes),
        left_out=checkpoint.left_out,
    )


def _refuse_lost_decoder(pairing: _Pairing) -> None:
    checkpoint = pairing.checkpoint
    if pairing.has_decoder and not (checkpoint.has_decoder or checkpoint.of_images):
        raise WeightsError(
            f"{checkpoint.source} has no decoder (encoder_to_decoder, mask_token, "
            f"decoder.*), and {pairing.model_name} needs one; take a pre-training "
            "checkpoint, such as MCG-NJU/videomae-base or a .pth of the original pre-training code"
        )


def _refuse_lost_biases(pairing: _Pairing) -> None:
    biases = r".*attention\.(query|value)\.bias$"
    if not _matching(biases, pairing.state):
        pairing.refuse(
            "has lost the biases of q and v",
            _matching(biases, pairing.missing),
            "early transformers 5 releases dropped them in silence: get the original file, or if "
            "the model was trained without, pass qv_bias=False",
        )
    if not _matching(biases, pairing.wanted):
        pairing.refuse(
            "has biases of q and v that qv_bias=False would lose",
            _matching(biases, pairing.surplus),
            "pass qv_bias=True",
        )


def _refuse_lost_norm(pairing: _Pairing, may_lose_norm: bool) -> None:
    of_encoder, of_pool = r"videomae\.layernorm\.", r"fc_norm\."
    lacking = [key for key in pairing.missing if key not in pairing.starts_fresh]
    mend = f"pass use_mean_pooling={not pairing.config.use_mean_pooling}"
    pairing.refuse(
        "lacks the final norm that {model} needs with use_mean_pooling={pooling}",
        _matching(f"{of_encoder}|{of_pool}", lacking),
        mend,
    )
    lost = []
    if pairing.has_head:
        lost += _matching(of_pool, pairing.surplus)
    # A classifier that starts afresh leaves the encoder's norm, as in the published fine-tuning.
    if not pairing.has_head or pairing.checkpoint.has_classifier:
        lost += _matching(of_encoder, pairing.surplus)
    if not may_lose_norm:
        pairing.refuse(
            "has a final norm that {model} would lose with use_mean_pooling={pooling}", lost, mend
        )


def _matching(pattern: str, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if re.match(pattern, key)]
