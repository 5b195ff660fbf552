"""Outputs of a forward: fields by name, by index, or unpacked; those that are None left out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

from torch import Tensor


class ModelOutput:
    """Base of the outputs: `out.logits`, `out["logits"]`, `out[1]`, `loss, logits = out`, `**out`.

    Unpacking gives values, not names; for names there is `keys()`.
    """

    def items(self) -> list[tuple[str, Any]]:
        """Name and value of the fields that are not None, in their order."""
        return [(name, value) for name, value in vars(self).items() if value is not None]

    def keys(self) -> list[str]:
        """The names of the fields that are not None."""
        return [name for name, _ in self.items()]

    def values(self) -> list[Any]:
        """The values of the fields that are not None."""
        return [value for _, value in self.items()]

    def to_tuple(self) -> tuple[Any, ...]:
        """`values()` as a tuple."""
        return tuple(self.values())

    def get(self, name: str, default: Any = None) -> Any:
        """The field of that name, or `default` where it is absent."""
        return dict(self.items()).get(name, default)

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
    """The encoder's tokens (B, N, D), and on request what each layer saw and attended to."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(kw_only=True)
class VideoMAEForPreTrainingOutput(ModelOutput):
    """The mean squared error, and the predictions (B, M, t*p*q*C) of hidden tubelets."""

    loss: Tensor
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(kw_only=True)
class ImageClassifierOutput(ModelOutput):
    """The loss where labels were given, and the classifier's logits (B, num_labels)."""

    loss: Tensor | None = None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


Arguments = ParamSpec("Arguments")
Output = TypeVar("Output", bound=ModelOutput, covariant=True)


class Forward(Protocol[Arguments, Output]):
    """A forward as type checkers see it: its own arguments, and `return_dict` beside them."""

    @overload
    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Output: ...
    @overload
    def __call__(self, *args: Any, return_dict: Literal[True] | None, **kwargs: Any) -> Output: ...
    @overload
    def __call__(
        self, *args: Any, return_dict: Literal[False], **kwargs: Any
    ) -> tuple[Any, ...]: ...


def can_return_tuple(
    forward: Callable[Concatenate[Any, Arguments], Output],
) -> Forward[Arguments, Output]:
    """Let a model's forward take `return_dict`: False, here or in the config, gives a tuple."""

    @wraps(forward)
    def answer(self: Any, *args: Any, return_dict: bool | None = None, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        named = self.config.return_dict if return_dict is None else return_dict
        return output if named else output.to_tuple()

    return answer  # type: ignore[return-value]
