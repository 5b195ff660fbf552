"""The network: a plain ViT over tubelets, a light decoder that predicts the hidden, a classifier.

Letters: B clips, T frames, C channels, H x W pixels; N tubelets, V of them visible, M to be
predicted; D features. Clips are always (B, T, C, H, W). Parameters carry the names that
transformers gives them, so that state dicts move over unchanged.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videomae.config import Grid, VideoMAEConfig
from videomae.errors import ConfigError
from videomae.masking import ChosenTokens, choose_tokens
from videomae.model.attention import check_implementation
from videomae.model.layers import VideoMAELayer, run_layer
from videomae.model.outputs import (
    BaseModelOutput,
    ImageClassifierOutput,
    VideoMAEForPreTrainingOutput,
    can_return_tuple,
)
from videomae.positions import grid_positions
from videomae.tubelets import grid_of, pick_tubelets, pixel_targets
from videomae.weights.pretrained import PretrainedModel


class Positions(nn.Module):
    """Fixed sin-cos positions of one width, for the config's grid or, on request, any other."""

    table: Tensor

    def __init__(self, config: VideoMAEConfig, dim: int) -> None:
        super().__init__()
        self.grid, self.trained_grid, self.dim = config.grid, config.position_grid, dim
        self.register_buffer("table", self.build(self.grid), persistent=False)  # (N, D)

    def build(self, grid: Grid) -> Tensor:
        return grid_positions(grid, self.trained_grid or self.grid, self.dim)

    def forward(self, grid: Grid, like: Tensor) -> Tensor:
        table = self.table if grid == self.grid else self.build(grid)
        return table.to(like.device, like.dtype)  # (N, D)


class VideoMAEPatchEmbeddings(nn.Module):
    """One linear map from a tubelet's pixels to D features; the weight is that of a Conv3d."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        kernel = (config.tubelet_size, *config.patch_hw)
        self.projection = nn.Conv3d(config.num_channels, config.hidden_size, kernel, stride=kernel)

    def forward(
        self, pixel_values: Tensor, grid: Grid | None = None, index: Tensor | None = None
    ) -> Tensor:
        # Kernel = stride, so that the convolution is a product per tubelet: hidden tubelets need
        # never be touched, and even where all are seen it is the faster way (docs/log.md).
        t, p, q = self.projection.kernel_size
        grid = grid or grid_of(pixel_values, t, (p, q))
        tubelets = pick_tubelets(pixel_values, grid, index)
        weight = self.projection.weight.flatten(1)  # (D, C*t*p*q)
        return F.linear(tubelets.flatten(2), weight, self.projection.bias)


class VideoMAEEmbeddings(nn.Module):
    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embeddings = VideoMAEPatchEmbeddings(config)
        self.position_embeddings = Positions(config, config.hidden_size)

    def check(self, pixel_values: Tensor, interpolate: bool) -> Grid:
        """The grid of these clips, where the model can take them."""
        config = self.config
        if not pixel_values.is_floating_point():
            raise ConfigError(
                f"pixel_values has dtype {pixel_values.dtype}, expected floats normalised as in "
                "training; VideoMAEImageProcessor makes them"
            )
        shape = tuple(pixel_values.shape)
        if len(shape) != 5:
            raise ConfigError(
                f"pixel_values has shape {shape}, expected 5 axes (batch, frames, channels, "
                "height, width); add the batch axis with pixel_values[None]"
            )
        if shape[2] != config.num_channels:
            fix = f"give those, or make the model with num_channels={shape[2]}"
            if shape[1] == config.num_channels:
                fix = "swap axes 1 and 2: this looks like (B, C, T, H, W)"
            raise ConfigError(
                f"pixel_values has shape {shape} (B, T, C, H, W) with {shape[2]} channels, "
                f"expected {config.num_channels}; {fix}"
            )
        grid = grid_of(pixel_values, config.tubelet_size, config.patch_hw)
        if grid != config.grid and not interpolate:
            height, width = config.image_hw
            raise ConfigError(
                f"clips have {shape[1]} frames of {shape[3]}x{shape[4]} pixels, the model was made "
                f"for {config.num_frames} frames of {height}x{width}; pass "
                "interpolate_pos_encoding=True to resize its positions, or override num_frames "
                "and image_size in from_pretrained"
            )
        return grid

    def forward(self, pixel_values: Tensor, grid: Grid, visible: Tensor | None = None) -> Tensor:
        tokens: Tensor = self.patch_embeddings(pixel_values, grid, visible)
        positions: Tensor = self.position_embeddings(grid, tokens)
        return tokens + (positions if visible is None else positions[visible])  # (B, V, D)


class VideoMAEEncoder(nn.Module):
    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        rates = torch.linspace(0, config.drop_path_rate, config.num_hidden_layers, device="cpu")
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
        self.layer = nn.ModuleList(VideoMAELayer(config, *sizes, rate) for rate in rates.tolist())
        self.gradient_checkpointing = False

    def forward(
        self, x: Tensor, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> BaseModelOutput:
        states: list[Tensor] = [x]
        attentions: list[Tensor] = []
        for layer in self.layer:
            x, weights = run_layer(
                layer, x, output_attentions, save_memory=self.gradient_checkpointing
            )
            if output_hidden_states:
                states.append(x)
            if weights is not None:
                attentions.append(weights)
        return BaseModelOutput(
            last_hidden_state=x,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


class VideoMAEDecoder(nn.Module):
    """A few narrow layers over visible tokens and mask tokens, then pixels for the last ones."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        dim = config.decoder_hidden_size
        sizes = (dim, config.decoder_num_attention_heads, config.decoder_intermediate_size)
        num_pixels = config.tubelet_size * config.patch_hw[0] * config.patch_hw[1]
        self.decoder_layers = nn.ModuleList(
            VideoMAELayer(config, *sizes) for _ in range(config.decoder_num_hidden_layers)
        )
        self.norm = nn.LayerNorm(dim, eps=config.pooled_norm_eps)
        self.head = nn.Linear(dim, num_pixels * config.num_channels)
        self.gradient_checkpointing = False

    def forward(self, x: Tensor, num_predicted: int) -> Tensor:
        for layer in self.decoder_layers:
            x, _ = run_layer(layer, x, save_memory=self.gradient_checkpointing)
        prediction: Tensor = self.head(self.norm(x[:, -num_predicted:]))  # (B, M, t*p*q*C)
        return prediction


class VideoMAEPreTrainedModel(PretrainedModel):
    """Base of the three public models, each made of a config, ours or that of transformers."""

    config_class = VideoMAEConfig
    main_input_name = "pixel_values"

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.config = VideoMAEConfig.convert(config)
        check_implementation(self.config.attn_implementation)

    def set_attn_implementation(self, implementation: str) -> None:
        """Change how attention is computed: auto, eager, sdpa or flash_attention_2."""
        check_implementation(implementation)
        self.config.attn_implementation = implementation

    def get_input_embeddings(self) -> nn.Module:
        """The module that turns tubelets of pixels into tokens."""
        encoder: nn.Module = getattr(self, self.base_model_prefix, self)
        return encoder.get_submodule("embeddings.patch_embeddings")


class VideoMAEModel(VideoMAEPreTrainedModel):
    """The encoder: clips (B, T, C, H, W) -> one token per visible tubelet.

    There is no class token. The final `layernorm` exists only with `use_mean_pooling=False`, which
    is what pre-training checkpoints have; fine-tuned ones normalise after pooling, in the
    classifier's `fc_norm`.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        config = self.config
        self.embeddings = VideoMAEEmbeddings(config)
        self.encoder = VideoMAEEncoder(config)
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm = None if config.use_mean_pooling else norm
        self.init_weights()

    def init_weights(self) -> None:
        """Start as the published fine-tuning code does from scratch: normal draws."""
        std = self.config.initializer_range
        _init_linears(self, lambda weight: nn.init.trunc_normal_(weight, std=std))

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | ChosenTokens | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> BaseModelOutput:
        """Encode clips.

        Args:
            pixel_values: (B, T, C, H, W), normalised as in training.
            bool_masked_pos: (B, N) bool, True = hidden, equally many in each clip; None shows all.
                On the CPU, or split by `masking.choose_tokens`, it makes no GPU wait.
            output_hidden_states: also return the embedding and each layer's tokens.
            output_attentions: also return each layer's weights (B, heads, V, V); uses `eager`.
            interpolate_pos_encoding: take other frame counts and sizes than the config's.

        Returns `last_hidden_state` (B, V, D), tokens in ascending order.
        """
        grid = self.embeddings.check(pixel_values, interpolate_pos_encoding)
        visible = None
        if bool_masked_pos is not None:
            chosen = choose_tokens(bool_masked_pos, grid.num_tokens)
            visible = chosen.to(pixel_values.device).visible
        return self.encode(pixel_values, grid, visible, output_hidden_states, output_attentions)

    if TYPE_CHECKING:  # a call of a module returns anything, unless it says otherwise
        __call__ = forward

    def encode(
        self,
        pixel_values: Tensor,
        grid: Grid,
        visible: Tensor | None,
        output_hidden_states: bool | None,
        output_attentions: bool | None,
    ) -> BaseModelOutput:
        """As `forward`, with the grid of the clips, and the token numbers (B, V) to be seen."""
        config = self.config
        tokens = self.embeddings(pixel_values, grid, visible)
        output: BaseModelOutput = self.encoder(
            tokens,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            config.output_attentions if output_attentions is None else output_attentions,
        )
        if self.layernorm is not None:
            output.last_hidden_state = self.layernorm(output.last_hidden_state)
        return output


class VideoMAEForPreTraining(VideoMAEPreTrainedModel):
    """Encoder and decoder: sees a few tubelets of a clip, predicts the pixels of the others."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        config = self.config
        self.videomae = VideoMAEModel(config)
        dim = config.decoder_hidden_size
        self.encoder_to_decoder = nn.Linear(config.hidden_size, dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position_embeddings = Positions(config, dim)
        self.decoder = VideoMAEDecoder(config)
        self.init_weights()

    def init_weights(self) -> None:
        """Start as the published pre-training code does: Xavier in encoder and decoder layers.

        `encoder_to_decoder` and the patch projection keep PyTorch's default there, and here.
        """
        for part in (self.videomae, self.decoder):
            _init_linears(part, nn.init.xavier_uniform_)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | ChosenTokens | None = None,
        decoder_bool_masked_pos: Tensor | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> VideoMAEForPreTrainingOutput:
        """Hide, predict, compare.

        Args:
            pixel_values: (B, T, C, H, W), normalised with the ImageNet mean and std if C is 3.
            bool_masked_pos: (B, N) bool, True = hidden, equally many in each clip; or both masks as
                `masking.choose_tokens` splits them, for `torch.compile`. See VideoMAEModel.
            decoder_bool_masked_pos: (B, N) bool, True = not decoded either (VideoMAE V2's dual
                masking). The loss then counts the decoded tubelets that the encoder did not see.

        Returns `loss`, and `logits` (B, M, t*p*q*C), one row for each hidden (or each decoded)
        tubelet in ascending order. Other arguments, hidden states and attentions are those of the
        encoder.
        """
        if bool_masked_pos is None:
            raise ConfigError(
                "VideoMAEForPreTraining needs bool_masked_pos (batch, tubelets), True = hidden; "
                "make it with videomae.masking.tube_mask(model.config.grid, 0.9, batch_size=...)"
            )
        grid = self.videomae.embeddings.check(pixel_values, interpolate_pos_encoding)
        chosen = choose_tokens(bool_masked_pos, grid.num_tokens, decoder_bool_masked_pos)
        visible, predicted, counted = chosen.to(pixel_values.device)

        encoded = self.videomae.encode(
            pixel_values, grid, visible, output_hidden_states, output_attentions
        )
        seen = self.encoder_to_decoder(encoded.last_hidden_state)  # (B, V, D)
        positions = self.position_embeddings(grid, seen)
        hidden = self.mask_token.to(seen.dtype) + positions[predicted]  # (B, M, D)
        tokens = torch.cat([seen + positions[visible], hidden], dim=1)  # (B, V + M, D)
        logits = self.decoder(tokens, predicted.shape[1])

        with torch.no_grad():
            normalize = self.config.norm_pix_loss
            target = pixel_targets(pixel_values, grid, predicted, normalize=normalize)
        if counted is None:
            loss = F.mse_loss(logits, target.to(logits.dtype))
        else:
            error = (logits - target).square().mean(-1)  # (B, M)
            loss = (error * counted).sum() / counted.sum()
        return VideoMAEForPreTrainingOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    if TYPE_CHECKING:
        __call__ = forward


class VideoMAEForVideoClassification(VideoMAEPreTrainedModel):
    """Encoder, the mean over all tokens, a norm, and a linear head.

    With `use_mean_pooling=False` the head sees the first token alone, which is the top left patch
    of the first frames: some published configs ask for it, hardly anyone wants it.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        config = self.config
        self.num_labels = config.num_labels
        self.videomae = VideoMAEModel(config)
        dim, num_labels = config.hidden_size, config.num_labels
        norm = nn.LayerNorm(dim, eps=config.pooled_norm_eps)
        self.fc_norm = norm if config.use_mean_pooling else None
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(dim, num_labels) if num_labels > 0 else nn.Identity()
        self.init_weights()

    def init_weights(self) -> None:
        """Start as the published code does: normal draws, and the head a thousandth of that."""
        self.videomae.init_weights()
        if isinstance(self.classifier, nn.Linear):
            nn.init.trunc_normal_(self.classifier.weight, std=self.config.initializer_range)
            self.classifier.weight.data.mul_(0.001)
            nn.init.zeros_(self.classifier.bias)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> ImageClassifierOutput:
        """Classify clips (B, T, C, H, W), and compare with `labels` where they are given.

        `labels` are class numbers (B), class shares (B, num_labels), or values to be fitted,
        according to `config.problem_type`, which is worked out as in transformers if it is None.
        Returns `loss` and `logits` (B, num_labels). Other arguments: see VideoMAEModel.
        """
        grid = self.videomae.embeddings.check(pixel_values, interpolate_pos_encoding)
        encoded = self.videomae.encode(
            pixel_values, grid, None, output_hidden_states, output_attentions
        )
        logits = self.classifier(self.dropout(self.pool(encoded.last_hidden_state)))
        return ImageClassifierOutput(
            loss=None if labels is None else self.loss(logits, labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    if TYPE_CHECKING:
        __call__ = forward

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) -> the features (B, D) that the head sees."""
        if self.fc_norm is None:
            return tokens[:, 0]
        pooled: Tensor = self.fc_norm(tokens.mean(1))
        return pooled

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, binary cross entropy or squared error, as `config.problem_type` says."""
        problem, labels = self.config.problem_type, labels.to(logits.device)
        if problem == "regression" or (problem is None and self.num_labels == 1):
            return F.mse_loss(logits.squeeze(), labels.squeeze().to(logits.dtype))
        shares = labels.is_floating_point() or labels.dtype == torch.bool
        if problem == "multi_label_classification" or (problem is None and shares):
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return F.cross_entropy(logits, labels)


def _init_linears(part: nn.Module, init_weight: Callable[[Tensor], Tensor]) -> None:
    """Start every linear map so, with zero biases; layer norms start as the identity."""
    for module in part.modules():
        if isinstance(module, nn.Linear):
            init_weight(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
