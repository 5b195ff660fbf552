"""From checkpoint to model and back: which config, which tensors, and a strict report of both."""

import dataclasses
import os
import warnings
from collections.abc import Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from videomae import hub
from videomae.compute.distributed import spread
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, WeightsError
from videomae.weights.arguments import as_dtype, check_overrides, whole_device
from videomae.weights.checkpoint import Checkpoint, checkpoint_of, describe, read_checkpoint
from videomae.weights.checks import check_finite
from videomae.weights.keys import State, from_hf_file_keys, inflate, some
from videomae.weights.matching import LoadReport, match
from videomae.weights.saving import save_folder


class PretrainedModel(nn.Module):
    """A network that can be loaded and saved: `from_pretrained`, `save_pretrained`, and more.

    A subclass takes a config alone, keeps it as `self.config`, and has `init_weights()`. It makes
    tables that are not saved on the CPU by name, so that they are filled in a blank model too.
    """

    config: VideoMAEConfig
    base_model_prefix = "videomae"
    _no_split_modules: ClassVar[list[str]]

    def init_weights(self) -> None:
        """Start all parameters anew."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: hub.PathLike | Checkpoint | None,
        *,
        config: VideoMAEConfig | hub.PathLike | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: str | int | torch.device | dict[str, Any] | None = None,
        max_memory: dict[int | str, int | str] | None = None,
        offload_folder: hub.PathLike | None = None,
        offload_buffers: bool = False,
        interpolate_pos_encoding: bool = True,
        keep_final_norm: bool = False,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        use_safetensors: bool | None = None,
        variant: str | None = None,
        trust_remote_code: bool | None = None,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **overrides: Any,
    ) -> Self:
        """Load a model, in eval mode, from a hub id, a folder, a shipped name, or one weight file.

        Args:
            pretrained_model_name_or_path: "MCG-NJU/videomae-base", "runs/mine", "actions-tiny",
                "vit_b_ssv2.pth", ... or a Checkpoint that was read already; None with state_dict.
            config: describes the checkpoint, in place of its config.json; a config, of transformers
                as well, or its file.
            state_dict: tensors under any known names, in place of a file; needs `config`.
            dtype: torch.float16, "float16", ...; "auto" takes config.json's or the file's own.
                By default config.json's, else float32. `torch_dtype` is its older name.
            device_map: one device, such as "cpu" or "cuda:0"; or how the model is spread over
                several, the CPU and the disk: "auto", "balanced", "sequential", or a device per
                module. accelerate does so, with `max_memory`, `offload_folder`, `offload_buffers`.
            interpolate_pos_encoding: where `num_frames` or `image_size` are overridden, resize the
                positions from the checkpoint's own grid. False refuses such overrides.
            keep_final_norm: start a classifier's pooled norm from the trained final norm of a
                pre-training checkpoint. By default it starts fresh, as in the published recipes.
            ignore_mismatched_sizes: start tensors outside the layers (head, patch embedding) anew
                where their shape differs from the checkpoint's, in place of an error.
            output_loading_info: return (model, LoadReport).
            use_safetensors: True or False opens only model.safetensors or pytorch_model.bin.
            variant: opens model.VARIANT.safetensors.
            trust_remote_code: accepted, but code of a repository is never run.
            subfolder: where in the folder or repository the files lie.
            revision, token, cache_dir, local_files_only, force_download: for the hub.
            **overrides: any config field, changing what the checkpoint is: `num_labels`,
                `id2label`, `attn_implementation`, `num_frames`, `drop_path_rate`, ...
                Arguments of transformers without meaning here are accepted where they ask for
                nothing, and refused where they do.

        A classifier made from a pre-training checkpoint has a fresh head, and takes the mean over
        all tokens even if config.json says otherwise, as the published ones do;
        `use_mean_pooling=False` keeps to that. An image MAE is a start for training on videos: its
        patches are inflated to tubelets, and its class token, positions, decoder and head left out.
        A warning announces each of these.

        Raises WeightsError where tensors are lacking or surplus, and where a head count is neither
        published nor given; ShapeError, a RuntimeError too, where one has another shape;
        SourceError, an OSError too, where there is no such file; ConfigError for wrong arguments.

        ```python
        VideoMAEForVideoClassification.from_pretrained(
            "MCG-NJU/videomae-base-finetuned-kinetics", dtype=torch.float16)
        VideoMAEForPreTraining.from_pretrained("mine.pth", num_attention_heads=3)
        ```
        """
        where = hub.HubArguments(
            subfolder=subfolder,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        check_overrides(overrides, signature(PretrainedModel.from_pretrained).parameters)
        device = whole_device(device_map)
        if isinstance(config, str | os.PathLike):
            config = VideoMAEConfig.from_pretrained(config, **where)
        config = None if config is None else VideoMAEConfig.convert(config)
        checkpoint = pretrained_model_name_or_path
        if checkpoint is None:
            if state_dict is None or config is None:
                raise ConfigError("a model without a name or path needs config= and state_dict=")
            checkpoint = checkpoint_of(state_dict, source="the state_dict")
        elif state_dict is not None:
            raise ConfigError(
                "both a name or path and state_dict= were given; pass None for the first, or leave "
                "out the second"
            )
        elif not isinstance(checkpoint, Checkpoint):
            checkpoint = read_checkpoint(
                checkpoint, use_safetensors=use_safetensors, variant=variant, **where
            )
        described, notes = describe(checkpoint, config, given=overrides)
        wanted = described.copy(**overrides)
        if wanted.grid != described.grid:
            if not interpolate_pos_encoding:
                raise ConfigError(
                    f"the overrides ask for a grid of {tuple(wanted.grid)} tubelets and the "
                    f"checkpoint has {tuple(described.grid)}; interpolate_pos_encoding=True "
                    "resizes its positions"
                )
            wanted.position_grid = described.position_grid or described.grid

        state = inflate(checkpoint.state, wanted.tubelet_size)
        model = cls._blank(wanted)
        starts_fresh = hasattr(model, "classifier") and not checkpoint.has_classifier
        if starts_fresh and "use_mean_pooling" not in overrides and not wanted.use_mean_pooling:
            notes.append(
                "a pre-training checkpoint: the classifier takes the mean over all tokens and a "
                "norm, though the config says use_mean_pooling=False, which classifies from the "
                "first patch alone; pass use_mean_pooling=False to keep to that"
            )
            wanted.use_mean_pooling = True
            model = cls._blank(wanted)
        if keep_final_norm:
            state = _final_norm_kept(model, state, checkpoint.source)
        prefix, added = model.checkpoint_prefix, model.added_tensors()
        others = {key: checkpoint.others[key] for key in added if key in checkpoint.others}
        state = {**state, **{prefix + key: value for key, value in others.items()}}
        unexpected = tuple(key for key in checkpoint.unexpected if key not in others)
        report = match(
            {prefix + key: tuple(value.shape) for key, value in model.state_dict().items()},
            dataclasses.replace(checkpoint, state=state, unexpected=unexpected),
            model_name=cls.__name__,
            config=wanted,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            may_lose_norm="use_mean_pooling" in overrides,
            added=[prefix + key for key in added],
            notes=[*checkpoint.notes, *notes],
        )
        if report.newly_initialised:
            notes.append(f"newly initialised, to be trained: {some(report.newly_initialised)}")
        if report.unexpected:
            notes.append(f"unexpected tensors were left out: {some(report.unexpected)}")
        if trust_remote_code:
            notes.append("trust_remote_code has no effect: code of a repository is never run")
        if notes:
            warnings.warn(f"{checkpoint.source}: {'; '.join(notes)}", stacklevel=2)

        chosen = as_dtype(dtype if dtype is not None else torch_dtype, described, checkpoint)
        model._fill(state, report, chosen, device or torch.device("cpu"))
        wanted.dtype = str(chosen).removeprefix("torch.")
        if device is None:
            spread(
                model,
                cast(Any, device_map),
                max_memory=max_memory,
                offload_dir=offload_folder,
                offload_buffers=offload_buffers,
            )
        return (model, report) if output_loading_info else model  # type: ignore[return-value]

    @property
    def checkpoint_prefix(self) -> str:
        """The start of these names in checkpoints, where only the encoder alone bears no prefix."""
        return "" if hasattr(self, self.base_model_prefix) else f"{self.base_model_prefix}."

    def added_tensors(self) -> list[str]:
        """Names of the tensors that a class of one's own adds to the model it is made of."""
        added = {name for name, part in self.named_modules() if vars(part).get("_added")}
        return [key for key in self.state_dict() if key.rpartition(".")[0] in added]

    @classmethod
    def _blank(cls, config: VideoMAEConfig) -> Self:
        """The model without memory for its parameters: cheap, for names and shapes."""
        with torch.device("meta"):
            return cls(config)

    def _fill(
        self, state: State, report: LoadReport, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Give a blank model its parameters, and itself its place and eval mode."""
        prefix = self.checkpoint_prefix
        fresh = {name.removeprefix(prefix).rpartition(".")[0] for name in report.newly_initialised}
        for name in fresh:
            module: Any = self.get_submodule(name)
            module.to_empty(device="cpu", recurse=False)
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            else:  # init_weights may know how these start
                for parameter in module.parameters(recurse=False):
                    nn.init.zeros_(parameter)
        if fresh:
            self.init_weights()  # the rest is still without memory, so this reaches those alone
        # Copied out of the mapped file: it may be replaced while the model lives on.
        tensors = {
            name.removeprefix(prefix): torch.empty_like(
                state[name],
                dtype=dtype if state[name].is_floating_point() else None,
                device=device,
                memory_format=torch.contiguous_format,
            ).copy_(state[name])
            for name in report.loaded
        }
        check_finite(tensors, report.source)
        self.load_state_dict(tensors, strict=False, assign=True)
        self.to(device=device, dtype=dtype)
        self.eval()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's; takes the names of biases in the files of `save_pretrained`, too."""
        if any(key.endswith((".q_bias", ".v_bias")) for key in state_dict):
            state_dict = from_hf_file_keys(state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def save_pretrained(
        self,
        save_directory: hub.PathLike,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        save_function: Any = None,  # noqa: ARG002
        push_to_hub: bool = False,
        repo_id: str | None = None,
        max_shard_size: int | str | None = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        save_peft_format: bool = True,  # noqa: ARG002
        save_original_format: bool = True,
        distributed_checkpoint: bool = False,
        **push: Any,
    ) -> None:
        """Write config.json and model.safetensors into a folder, as transformers reads them.

        Each file is written whole or not at all.

        Args:
            save_directory: the folder, made if missing.
            is_main_process: False writes nothing: for all but one of several processes.
            state_dict: written in place of the model's own, such as
                `accelerator.get_state_dict(model)` of a model in pieces.
            push_to_hub: upload the same two files as well, to `repo_id` or a repository of the
                folder's name; with the arguments of `push_to_hub`.
            max_shard_size: write files of at most so many bytes, or "5GB", and an index of them.
                By default there is one file.
            variant: write model.VARIANT.safetensors.
            save_original_format: False names biases as the model does (`query.bias`), for code that
                loads the file by `load_state_dict`; the default is what transformers 4 reads too.
            save_function, save_peft_format: without effect.

        Raises ConfigError for `safe_serialization=False` and `distributed_checkpoint=True`;
        WeightsError where `state_dict` is not this model's, or tensors are elsewhere: sharded over
        processes, or offloaded. Warns where `state_dict` is a part of the model alone.
        """
        if not safe_serialization:
            raise ConfigError(
                "safe_serialization=False asks for a pickle; only safetensors is written. "
                "torch.save(model.state_dict(), path) makes a pickle"
            )
        if distributed_checkpoint:
            raise ConfigError(
                "distributed_checkpoint=True is not supported; write pieces with "
                "torch.distributed.checkpoint.save, or pass state_dict=, which is written whole"
            )
        hub.check_push(push)
        if not is_main_process:
            return
        save = partial(
            save_folder,
            self,
            state=state_dict,
            variant=variant,
            max_shard_size=max_shard_size,
            names_of_4=save_original_format,
        )
        save(save_directory)
        if push_to_hub:
            name = repo_id or Path(save_directory).resolve().name
            hub.push_saved(save, name, **push)

    def push_to_hub(
        self, repo_id: str, *, max_shard_size: int | str | None = None, **push: Any
    ) -> str:
        """Upload config.json and model.safetensors to a hub repository; the URL of the commit.

        `push` are `private`, `token`, `commit_message`, `commit_description`, `revision` and
        `create_pr`: see `hub.push_folder`.
        """
        save = partial(save_folder, self, max_shard_size=max_shard_size)
        return hub.push_saved(save, repo_id, **push)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device


def _final_norm_kept(model: PretrainedModel, state: State, source: str) -> State:
    if getattr(model, "fc_norm", None) is None or "fc_norm.weight" in state:
        raise ConfigError(
            "keep_final_norm=True is for a classifier with mean pooling made from a pre-training "
            "checkpoint; leave it out"
        )
    if "videomae.layernorm.weight" not in state:
        raise ConfigError(f"keep_final_norm=True, but {source} has no final norm")
    norm = {f"fc_norm.{part}": state[f"videomae.layernorm.{part}"] for part in ("weight", "bias")}
    return {**state, **norm}


Loaded = TypeVar("Loaded", bound=PretrainedModel)


def load_trained(model_class: type[Loaded], path: hub.PathLike, **arguments: Any) -> Loaded:
    """A model in evaluation mode with nothing in it newly initialised."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded: Any = model_class.from_pretrained(path, output_loading_info=True, **arguments)
    model, report = cast(tuple[Loaded, LoadReport], loaded)
    if report.newly_initialised:
        raise WeightsError(
            f"{path} holds no trained classifier (it lacks "
            f"{', '.join(report.newly_initialised)}), so that its answers would be random; train "
            f"one with `videomae finetune --init {path} --data DIR`"
        )
    for warning in caught:
        warnings.warn(warning.message, stacklevel=3)
    return model
