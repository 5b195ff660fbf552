"""What any model of transformers offers and is not VideoMAE, under the names it has there.

Counts of parameters, activation checkpointing, parts by their common names, the start of what a
subclass adds, and the fixed positions on their way from device to device. Loading and saving are in
`weights/pretrained.py`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NoReturn, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.model.attention import check_implementation
from videomae.model.layers import VideoMAELayer
from videomae.weights.pretrained import PretrainedModel


class VideoMAEPreTrainedModel(PretrainedModel):
    """Base of the three public models, each made of a config, ours or that of transformers.

    A class of your own is made as with transformers: its `__init__` ends with `self.post_init()`,
    and it may say in `_init_weights(module)` how the parts that it adds start.
    """

    config_class = VideoMAEConfig
    main_input_name = "pixel_values"
    input_modalities = "video"
    supports_gradient_checkpointing = True
    model_tags: list[str] | None = None
    # Accelerate, peft and the Trainer read these. Each of the parts that are not split is put whole
    # on one device, and wrapped by FSDP.
    _supports_sdpa = _supports_flash_attn = _can_compile_fullgraph = True
    _supports_flex_attn = _supports_attention_backend = False
    _keep_in_fp32_modules = _keep_in_fp32_modules_strict = frozenset[str]()
    _keys_to_ignore_on_load_missing = _keys_to_ignore_on_load_unexpected = None
    _no_split_modules: ClassVar[list[str]] = ["VideoMAEEmbeddings", "VideoMAELayer"]
    _keys_to_ignore_on_save: ClassVar = None
    _tied_weights_keys: ClassVar = None
    all_tied_weights_keys: ClassVar[dict[str, str]] = {}

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.config = VideoMAEConfig.convert(config)
        _check_heads(self.config)
        check_implementation(self.config.attn_implementation)

    @classmethod
    def _from_config(
        cls,
        config: VideoMAEConfig,
        dtype: torch.dtype | None = None,
        attn_implementation: str | None = None,
    ) -> Self:
        """A fresh model, as the Auto classes of transformers make one."""
        if attn_implementation is not None:
            config._attn_implementation = attn_implementation
        return cls(config).to(dtype=dtype)

    # --- parts by name ----------------------------------------------------------------------------

    @property
    def name_or_path(self) -> str:
        """Where the model was loaded from; empty for a fresh one."""
        return self.config.name_or_path

    @property
    def base_model(self) -> nn.Module:
        """The encoder: `model.videomae` of a model with a head, else the model itself."""
        base: nn.Module = getattr(self, self.base_model_prefix, self)
        return base

    def get_input_embeddings(self) -> nn.Module:
        """The module that turns tubelets of pixels into tokens."""
        return self.base_model.get_submodule("embeddings.patch_embeddings")

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another module in the place of `get_input_embeddings()`."""
        embeddings: Any = self.base_model.get_submodule("embeddings")
        embeddings.patch_embeddings = value

    def get_output_embeddings(self) -> None:
        """None: there are no words to be put out."""

    def tie_weights(self, *_: Any, **__: Any) -> None:
        """Nothing: no two parts share weights."""

    def get_encoder(self, modality: str | None = None) -> nn.Module:  # noqa: ARG002
        """The layers of the encoder."""
        return self.base_model.get_submodule("encoder")

    def get_decoder(self) -> nn.Module:
        """The decoder of pre-training; the other models have none and give themselves."""
        return getattr(self, "decoder", self)

    # --- attention, counts ------------------------------------------------------------------------

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Change how attention is computed: auto, eager, sdpa or flash_attention_2."""
        check_implementation(attn_implementation)
        self.config.attn_implementation = attn_implementation

    def set_merge_tokens(self, num_merged: int) -> None:
        """Let each layer of the encoder merge so many of its tokens into others most like them.

        Less work for nearly the same answer, in inference and in training; 0 merges none. Outputs
        keep their shapes. Neither saved nor part of the config; see `model.merging`.
        """
        if num_merged < 0:
            raise ConfigError(f"merge_tokens={num_merged} must be 0 or more tokens per layer")
        encoder: Any = self.get_encoder()
        encoder.merge_tokens = num_merged

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the parameters hold.

        `exclude_embeddings` leaves out tables of embeddings (`nn.Embedding`), of which VideoMAE has
        none: its patches are mapped by a convolution, which counts.
        """
        tables = {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)}
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if (parameter.requires_grad or not only_trainable)
            and not (exclude_embeddings and id(parameter) in tables)
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the parameters and, unless told otherwise, of the buffers."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return False

    @classmethod
    def can_generate(cls) -> bool:
        """False: no text comes out."""
        return False

    def add_model_tags(self, tags: list[str] | str) -> None:
        """Note tags for the model's page on a hub, each once."""
        new = [tags] if isinstance(tags, str) else tags
        self.model_tags = list(dict.fromkeys([*(self.model_tags or []), *new]))

    # --- memory and gradients ---------------------------------------------------------------------

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """In training, forget what happens inside layers and compute it again for gradients.

        Saves memory for about a third more time.

        Args:
            activation_checkpointing_kwargs: for `torch.utils.checkpoint.checkpoint`;
                `use_reentrant=False` by default.
            every_n_layers: of so many layers, one does it: 2 for every other, saving half.
            offload: keep what is still needed, each layer's input, in memory of the CPU.
        """
        if every_n_layers < 1:
            raise ConfigError(f"every_n_layers={every_n_layers} must be at least 1")
        run = partial(
            checkpoint, **{"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        )
        layers = [module for module in self.modules() if isinstance(module, VideoMAELayer)]
        for number, layer in enumerate(layers):
            layer.gradient_checkpointing = number % every_n_layers == 0
            layer._gradient_checkpointing_func = partial(_offloaded, run) if offload else run

    def activation_checkpointing_disable(self) -> None:
        """Undo `activation_checkpointing_enable`."""
        for module in self.modules():
            if isinstance(module, VideoMAELayer):
                module.gradient_checkpointing = False

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether any layer of the model has activation checkpointing on."""
        return any(getattr(part, "gradient_checkpointing", False) for part in self.modules())

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **others: Any
    ) -> None:
        """`activation_checkpointing_enable` by its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **others)

    # by their older names
    gradient_checkpointing_disable = activation_checkpointing_disable
    is_gradient_checkpointing = is_activation_checkpointing

    def enable_input_require_grads(self) -> None:
        """Let gradients reach the tokens though the patch embedding is frozen, as adapters need."""
        self.disable_input_require_grads()
        embeddings = self.get_input_embeddings()
        self._require_grads_hook = embeddings.register_forward_hook(
            lambda _module, _inputs, tokens: tokens.requires_grad_()
        )

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        hook = vars(self).pop("_require_grads_hook", None)
        if hook is not None:
            hook.remove()

    def add_adapter(self, *_: Any, **__: Any) -> NoReturn:
        """Not here: adapters are put around a model by peft itself."""
        raise ConfigError(
            "a model takes no adapters in; put them around it: "
            "peft.get_peft_model(model, peft_config), or peft.PeftModel.from_pretrained"
        )

    load_adapter = set_adapter = add_adapter

    def resize_token_embeddings(self, *_: Any, **__: Any) -> NoReturn:
        """Not here: there are no words."""
        raise ConfigError(
            "VideoMAE has no table of tokens to resize; for other frame counts and sizes pass "
            "num_frames= and image_size= to from_pretrained, or interpolate_pos_encoding=True"
        )

    resize_position_embeddings = get_position_embeddings = resize_token_embeddings

    # --- the start --------------------------------------------------------------------------------

    def post_init(self) -> None:
        """Start the parameters, at the end of `__init__`: in a subclass only what it has added."""
        added = (
            "_added" in vars(self)
            or type(self).init_weights is VideoMAEPreTrainedModel.init_weights
        )
        new = [module for module in self.modules() if "_added" not in vars(module)]
        for module in new:
            module._added = added  # type: ignore[assignment]
            if added:
                self._init_weights(module)
        if not added:
            self.init_weights()
        # Older configs may ask for it; of nested models the first one does it for all.
        asked = self.config.extra.pop("gradient_checkpointing", False)
        if asked or self.is_activation_checkpointing:
            self.activation_checkpointing_enable()

    def init_weights(self) -> None:
        """Start anew: here what a subclass has added, in the public models everything."""
        for module in self.modules():
            if vars(module).get("_added"):
                self._init_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Start one module of a subclass as transformers does: normal draws, zero biases."""
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    # --- positions --------------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the fixed positions too, which are no buffers, so that they are never emptied.

        `.to_empty()` and `.half()` come here as `.to(device)` does, and no state dict would bring
        the values of the table back.
        """
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = self.device
        for module in self.modules():
            table = vars(module).get("position_embeddings")
            if table is not None and device.type != "meta":
                module.position_embeddings = table.to(device)
        return self


def _check_heads(config: VideoMAEConfig) -> None:
    """Raise ConfigError where heads cannot share the features evenly.

    Not the config asks this: its two fields may be set one after the other.
    """
    for part in ("", "decoder_"):
        size, heads = config[f"{part}hidden_size"], config[f"{part}num_attention_heads"]
        if size % heads:
            raise ConfigError(
                f"{part}hidden_size={size} cannot be split over {part}num_attention_heads="
                f"{heads} heads; choose a number of heads that divides {size}"
            )


def _offloaded(run: Callable[..., Any], *arguments: Any) -> Any:
    with torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available()):
        return run(*arguments)
