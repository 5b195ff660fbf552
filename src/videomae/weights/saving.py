"""From model to files: config.json and weights in a folder, and config.json beside Trainer's."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from videomae import hub
from videomae.errors import ConfigError, ShapeError, WeightsError
from videomae.weights.checkpoint import SAFETENSORS_NAME, of_variant, save_safetensors
from videomae.weights.keys import State, some, to_hf_file_keys


def save_folder(
    model: Any,
    folder: hub.PathLike,
    state: Mapping[str, Tensor] | None = None,
    *,
    variant: str | None = None,
    max_shard_size: int | str | None = None,
    names_of_4: bool = True,
) -> None:
    """Write a model, or another state of it, with its config.

    Weights go into model.safetensors, or into shards with an index. Each file is written whole or
    not at all, the index last. Then weights that an earlier save left under other names are
    removed: they would be read in place of these.
    names_of_4: name the biases as transformers 4 and 5 read them; else as the model does.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ConfigError(f"{folder} is a file, and a model is saved as a folder; name one")
    state = _checked(model, state)
    tensors = to_hf_file_keys(state) if names_of_4 else state
    whole = of_variant(SAFETENSORS_NAME, variant)
    index = folder / of_variant(f"{SAFETENSORS_NAME}.index.json", variant)
    pattern = whole.removesuffix(".safetensors") + "{suffix}.safetensors"
    plan = {whole: list(tensors)}
    if max_shard_size is not None:
        plan = hub.plan_shards(tensors, pattern, max_shard_size)
    for name, keys in plan.items():
        save_safetensors(folder / name, {key: tensors[key] for key in keys})
    written = {folder / name for name in plan}
    if len(plan) > 1:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        places = {key: name for name, keys in plan.items() for key in keys}
        hub.write_json(index, {"metadata": {"total_size": size}, "weight_map": places})
        written.add(index)
    shards = folder.glob(pattern.format(suffix="-?????-of-?????"))
    for path in {folder / whole, index, *shards} - written:
        path.unlink(missing_ok=True)
    dtypes = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    save_config(model, folder, dtype=next(dtypes, model.dtype))


def save_config(model: Any, folder: hub.PathLike, *, dtype: Any) -> None:
    """Write the config.json of a model whose weights have this dtype."""
    config = model.config.copy(
        architectures=[type(model).__name__.removeprefix("FSDP")],  # which fully_shard puts there
        dtype=str(dtype).removeprefix("torch."),
    )
    if config.position_grid not in (None, config.grid):
        warnings.warn(
            f"the positions of this model are resized from {tuple(config.position_grid or ())} "
            f"to {tuple(config.grid)} tubelets; transformers does not know that and will give "
            "other outputs for the saved folder",
            stacklevel=4,
        )
    config.save_pretrained(folder)


def _checked(model: nn.Module, state: Mapping[str, Tensor] | None) -> State:
    """The tensors to be written, once they are known to be whole ones of this model."""
    own = model.state_dict()
    state = dict(own if state is None else state)
    unknown = [name for name in state if name not in own]
    if unknown or not state:
        what = f"has tensors that the model does not know: {some(unknown)}" if state else "is empty"
        raise WeightsError(
            f"state_dict {what}; pass accelerator.get_state_dict(model), and is_main_process=False "
            "on all processes but one"
        )
    elsewhere, where = [name for name, tensor in state.items() if tensor.is_meta], "offloaded"
    call = "accelerate.utils.modeling.get_state_dict_offloaded_model(model)"
    if in_pieces := [name for name, tensor in state.items() if hasattr(tensor, "full_tensor")]:
        elsewhere, where = in_pieces, "spread over processes"
        call = "accelerator.get_state_dict(model)"
    if elsewhere:
        raise WeightsError(
            f"{len(elsewhere)} tensors of this model are {where}: {some(elsewhere)}; pass "
            f"state_dict={call}"
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape and own[name].numel():  # DeepSpeed leaves empty ones
            raise ShapeError(
                f"state_dict has {name} as {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
            )
    if lacking := [name for name in own if name not in state]:
        warnings.warn(
            f"state_dict lacks {len(lacking)} tensors of the model, and so will the saved folder: "
            f"{some(lacking)}",
            stacklevel=4,
        )
    return state


class SaveConfigCallback:
    """Write config.json beside the weights that transformers' Trainer saves.

    Trainer calls `save_pretrained` of its own models alone, and writes no config for others. With
    `Trainer(model, ..., callbacks=[videomae.SaveConfigCallback()])` each checkpoint, and
    `output_dir` once training has ended, opens by `from_pretrained` here and in transformers. Into
    another folder that `trainer.save_model(folder)` writes, `model.config.save_pretrained(folder)`
    puts it.
    """

    def on_save(self, args: Any, state: Any, control: Any, **objects: Any) -> None:  # noqa: ARG002
        self._save(args, Path(args.output_dir) / f"checkpoint-{state.global_step}", objects)

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:  # noqa: ARG002
        self._save(args, Path(args.output_dir), objects)

    def _save(self, args: Any, folder: Path, objects: dict[str, Any]) -> None:
        model = objects["model"]
        if args.should_save and not hasattr(model, "peft_config"):  # peft saves its own
            save_config(model, folder, dtype=model.dtype)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Nothing to do at the other events, of which newer releases may have more."""
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_, **__: None
