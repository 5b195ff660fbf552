"""Outputs of a forward: ordered dicts of the fields that are not None, which torch knows."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Literal,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from torch import Tensor
from torch.utils import _pytree as pytree


class ModelOutput(OrderedDict[str, Any]):
    """Base of the outputs: `out.logits`, `out["logits"]`, `out[1]`, `out[:2]`, `**out`.

    A field that is None reads as None and is no key. As of any dict, a loop or unpacking gives the
    names: `loss, logits = out.to_tuple()` gives the values. A subclass is a `@dataclass(init=False,
    eq=False)`, its fields without values.

    An output is also made of its values in order, or, as torch and accelerate do it to move or to
    gather one, of a mapping or of pairs.
    """

    _names: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        """Let torch look into it: torch.export, torch.func, DDP and FSDP, which go by pytrees."""
        cls._names = tuple(cls.__annotations__)
        pytree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output)),
            lambda values, names: cls(**dict(zip(names, values, strict=True))),
            flatten_with_keys_fn=lambda output: (
                [(pytree.MappingKey(name), value) for name, value in output.items()],
                list(output),
            ),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        )

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__()
        names = self._names
        if len(values) == 1 and values[0] is not None and not isinstance(values[0], Tensor):
            named, values = dict(values[0]), ()
        given = {**dict(zip(names[: len(values)], values, strict=False)), **named}
        if len(values) > len(names) or any(name not in names for name in given):
            got = ", ".join(given) if named else f"{len(values)} values"
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(names)}, got {got}")
        for name in names:
            if given.get(name) is not None:
                self[name] = given[name]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are not None, in order."""
        return tuple(self.values())

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(f"{name}; this output has {', '.join(self)}")

    if not TYPE_CHECKING:  # which would then take any name for a field

        def __getattr__(self, name: str) -> Any:
            if name in self._names:
                return self.get(name)
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if value is None:
            self.pop(name, None)
        else:
            self[name] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


@dataclass(init=False, eq=False)
class BaseModelOutput(ModelOutput):
    """The encoder's tokens (B, N, D), and on request what each layer saw and attended to."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


@dataclass(init=False, eq=False)
class VideoMAEForPreTrainingOutput(ModelOutput):
    """The mean squared error, and the predictions (B, M, t*p*q*C) of hidden tubelets."""

    loss: Tensor
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


@dataclass(init=False, eq=False)
class ImageClassifierOutput(ModelOutput):
    """The loss where labels were given, and the classifier's logits (B, num_labels)."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


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
    """Let a model's forward take `return_dict`: False, here or in the config, gives a tuple.

    By position it comes sixth, after `output_hidden_states`, as in transformers 4. Arguments that
    it does not know are left out where they are None: peft and others pass those of text models.
    """
    known = tuple(signature(forward).parameters)  # which torch.compile follows

    @wraps(forward)
    def answer(self: Any, *args: Any, return_dict: bool | None = None, **kwargs: Any) -> Any:
        if len(args) == 6:
            *args, return_dict = args  # type: ignore[assignment]
        kwargs = {
            name: kwargs[name] for name in kwargs if name in known or kwargs[name] is not None
        }
        output = forward(self, *args, **kwargs)
        named = self.config.return_dict if return_dict is None else return_dict
        return output if named else output.to_tuple()

    return answer  # type: ignore[return-value]
