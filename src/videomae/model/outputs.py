"""What the models return: fields by name, by index, or unpacked; those that are None left out."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


class ModelOutput:
    """Base of the outputs: `out.logits`, `out["logits"]`, `out[1]`, `loss, logits = out`, `**out`.

    Unpacking gives values, not names; for names there is `keys()`.
    """

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are there, in the order of the fields."""
        return tuple(self.values())

    def keys(self) -> list[str]:
        """The names of the fields that are not None."""
        names = (field.name for field in dataclasses.fields(self))  # type: ignore[arg-type]
        return [name for name in names if getattr(self, name) is not None]

    def values(self) -> list[Any]:
        """The values of the fields that are not None."""
        return [getattr(self, name) for name in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        """Pairs of name and value."""
        return list(zip(self.keys(), self.values(), strict=True))

    def get(self, name: str, default: Any = None) -> Any:
        """The field of that name, or `default` where it is absent."""
        return getattr(self, name) if name in self.keys() else default

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(f"{key}; this output has {', '.join(self.keys())}")
            return getattr(self, key)
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()


@dataclass
class BaseModelOutput(ModelOutput):
    """Of the encoder: tokens (B, N, D), and on request what each layer saw and attended to."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class VideoMAEForPreTrainingOutput(ModelOutput):
    """Of pre-training: mean squared error, and predictions (B, M, t*p*q*C) of hidden tubelets."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class ImageClassifierOutput(ModelOutput):
    """Of the classifier: the loss where labels were given, and logits (B, num_labels)."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
