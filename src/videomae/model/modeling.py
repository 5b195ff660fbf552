"""The network: a plain ViT over tubelets, a light decoder that predicts the hidden, a classifier.

Letters: B clips, T frames, C channels, H x W pixels; N tubelets, V of them visible, M to be
predicted; D features. Clips are always (B, T, C, H, W). Parameters carry the names that
transformers gives them, so that state dicts move over unchanged.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videomae.config import Grid, VideoMAEConfig
from videomae.errors import ConfigError
from videomae.masking import ChosenTokens, choose_tokens
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.layers import VideoMAELayer, VideoMAEPatchEmbeddings, untouched
from videomae.model.merging import run_layers
from videomae.model.outputs import (
    BaseModelOutput,
    ImageClassifierOutput,
    VideoMAEForPreTrainingOutput,
    can_return_tuple,
)
from videomae.positions import grid_positions
from videomae.tubelets import grid_of, pick_tubelets, pixel_targets

__all__ = [
    "VideoMAEForPreTraining",
    "VideoMAEForVideoClassification",
    "VideoMAEModel",
    "VideoMAEPreTrainedModel",
]


def check_clips(pixel_values: Tensor, config: VideoMAEConfig, *, interpolate: bool = False) -> Grid:
    """The grid of clips, where a model of this config can take them; else a ConfigError."""
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


def refuse_head_mask(head_mask: object) -> None:
    """Raise ConfigError for anything but None, the place of which is kept from transformers 4."""
    if head_mask is not None:
        raise ConfigError(
            "the third argument by position is head_mask, which no model here and none of "
            "transformers 5 applies; leave it None, and give others by name"
        )


def fixed_positions(config: VideoMAEConfig, dim: int, grid: Grid | None = None) -> Tensor:
    """Sin-cos positions (1, N, dim) of the config's grid, or of another on request."""
    return grid_positions(grid or config.grid, config.position_grid or config.grid, dim)[None]


def positions_of(grid: Grid, config: VideoMAEConfig, table: Tensor, like: Tensor) -> Tensor:
    """The positions (N, D) of a grid: a model's own table (1, N, D), or one for another grid."""
    if grid != config.grid:
        table = fixed_positions(config, table.shape[-1], grid)
    return table[0].to(like.device, like.dtype)


class VideoMAEEmbeddings(nn.Module):
    """Visible tubelets and their fixed places, added."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embeddings = VideoMAEPatchEmbeddings(config)
        self.num_patches = self.patch_embeddings.num_patches
        self.position_embeddings = fixed_positions(config, config.hidden_size)  # (1, N, D)

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | ChosenTokens | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> Tensor:
        grid = check_clips(pixel_values, self.config, interpolate=interpolate_pos_encoding)
        visible = None
        if bool_masked_pos is not None:
            chosen = choose_tokens(bool_masked_pos, grid.num_tokens)
            visible = chosen.to(pixel_values.device).visible
        tokens = self.embed(pixel_values, grid, visible)
        positions = positions_of(grid, self.config, self.position_embeddings, like=tokens)
        return tokens + (positions if visible is None else positions[visible])  # (B, V, D)

    def embed(self, pixel_values: Tensor, grid: Grid, visible: Tensor | None) -> Tensor:
        """The tokens (B, V, D) without their places; hidden pixels are not looked at."""
        patches: Any = self.patch_embeddings
        if visible is not None and untouched(patches) and untouched(patches.projection):
            tokens: Tensor = patches.embed(pick_tubelets(pixel_values, grid, visible))
            return tokens
        tokens = patches(pixel_values)  # whoever touched it sees whole clips, as anywhere
        return tokens if visible is None else tokens.take_along_dim(visible[..., None], 1)


class VideoMAEEncoder(nn.Module):
    merge_tokens = 0  # see `VideoMAEModel.set_merge_tokens`

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        rates = torch.linspace(0, config.drop_path_rate, config.num_hidden_layers, device="cpu")
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
        self.layer = nn.ModuleList(VideoMAELayer(config, *sizes, rate) for rate in rates.tolist())

    def forward(
        self,
        hidden_states: Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BaseModelOutput:
        if self.merge_tokens:
            if output_hidden_states or output_attentions:
                raise ConfigError(
                    "hidden states and attentions of merged tokens are those of no place; call "
                    "set_merge_tokens(0) to get them"
                )
            return BaseModelOutput(run_layers(self.layer, hidden_states, self.merge_tokens))
        x, states = hidden_states, [hidden_states]
        attentions: list[Tensor] | None = [] if output_attentions else None
        for layer in self.layer:
            x = layer(x, attentions)
            if output_hidden_states:
                states.append(x)
        return BaseModelOutput(
            last_hidden_state=x,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=None if attentions is None else tuple(attentions),
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

    def forward(self, x: Tensor, num_predicted: int) -> Tensor:
        for number, layer in enumerate(self.decoder_layers, 1):
            # What the last layer makes of the visible tokens, nobody looks at.
            last = number == len(self.decoder_layers) and untouched(*layer.modules())
            x = layer(x, num_last=num_predicted) if last else layer(x)
        prediction: Tensor = self.head(self.norm(x[:, -num_predicted:]))  # (B, M, t*p*q*C)
        return prediction


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
        self.post_init()

    def init_weights(self) -> None:
        """Start as the published fine-tuning code does from scratch: normal draws."""
        std = self.config.initializer_range
        _init_linears(self, lambda weight: nn.init.trunc_normal_(weight, std=std))
        super().init_weights()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | ChosenTokens | None = None,
        head_mask: None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        *,
        interpolate_pos_encoding: bool = False,
    ) -> BaseModelOutput:
        """Encode clips.

        Args:
            pixel_values: (B, T, C, H, W), normalised as in training.
            bool_masked_pos: (B, N) bool, True = hidden, equally many in each clip; None shows all.
                On the CPU, or split by `masking.choose_tokens`, it makes no GPU wait.
            head_mask: None; its place in the arguments of transformers 4.
            output_attentions: also return each layer's weights (B, heads, V, V); uses `eager`.
            output_hidden_states: also return the embedding and each layer's tokens.
            interpolate_pos_encoding: take other frame counts and sizes than the config's.

        Returns `last_hidden_state` (B, V, D), tokens in ascending order.
        """
        refuse_head_mask(head_mask)
        config = self.config
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        if output_attentions is None:
            output_attentions = config.output_attentions
        tokens = self.embeddings(pixel_values, bool_masked_pos, interpolate_pos_encoding)
        encoded: BaseModelOutput = self.encoder(tokens, output_hidden_states, output_attentions)
        if self.layernorm is not None:
            encoded.last_hidden_state = self.layernorm(encoded.last_hidden_state)
        return encoded

    if TYPE_CHECKING:  # a call of a module returns anything, unless it says otherwise
        __call__ = forward


class VideoMAEForPreTraining(VideoMAEPreTrainedModel):
    """Encoder and decoder: sees a few tubelets of a clip, predicts the pixels of the others."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        config = self.config
        self.videomae = VideoMAEModel(config)
        dim = config.decoder_hidden_size
        self.encoder_to_decoder = nn.Linear(config.hidden_size, dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position_embeddings = fixed_positions(config, dim)  # (1, N, D)
        self.decoder = VideoMAEDecoder(config)
        self.post_init()

    def init_weights(self) -> None:
        """Start as the published pre-training code does: Xavier in encoder and decoder layers.

        `encoder_to_decoder` and the patch projection keep PyTorch's default there, and here.
        """
        for part in (self.videomae, self.decoder):
            _init_linears(part, nn.init.xavier_uniform_)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        super().init_weights()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | ChosenTokens | None = None,
        head_mask: None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        *,
        decoder_bool_masked_pos: Tensor | None = None,
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
        refuse_head_mask(head_mask)
        if bool_masked_pos is None:
            raise ConfigError(
                "VideoMAEForPreTraining needs bool_masked_pos (batch, tubelets), True = hidden; "
                "make it with videomae.masking.tube_mask(model.config.grid, 0.9, batch_size=...)"
            )
        config = self.config
        grid = check_clips(pixel_values, config, interpolate=interpolate_pos_encoding)
        chosen = choose_tokens(bool_masked_pos, grid.num_tokens, decoder_bool_masked_pos)
        visible, predicted, counted = chosen = chosen.to(pixel_values.device)

        encoded = self.videomae(
            pixel_values,
            chosen,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=True,
        )
        seen = self.encoder_to_decoder(encoded.last_hidden_state)  # (B, V, D)
        positions = positions_of(grid, config, self.position_embeddings, like=seen)
        hidden = self.mask_token.to(seen.dtype) + positions[predicted]  # (B, M, D)
        tokens = torch.cat([seen + positions[visible], hidden], dim=1)  # (B, V + M, D)
        logits = self.decoder(tokens, predicted.shape[1])

        with torch.no_grad():
            target = pixel_targets(pixel_values, grid, predicted, normalize=config.norm_pix_loss)
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
        self.post_init()

    def init_weights(self) -> None:
        """Start with normal draws: as the published code, and for the head as transformers."""
        self.videomae.init_weights()
        if isinstance(self.classifier, nn.Linear):
            nn.init.trunc_normal_(self.classifier.weight, std=self.config.initializer_range)
            nn.init.zeros_(self.classifier.bias)
        super().init_weights()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        head_mask: None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        *,
        interpolate_pos_encoding: bool = False,
    ) -> ImageClassifierOutput:
        """Classify clips (B, T, C, H, W), and compare with `labels` where they are given.

        `labels` are class numbers (B), class shares (B, num_labels), or values to be fitted,
        according to `config.problem_type`, which is worked out as in transformers if it is None.
        Returns `loss` and `logits` (B, num_labels). Other arguments: see VideoMAEModel.
        """
        refuse_head_mask(head_mask)
        encoded = self.videomae(
            pixel_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=True,
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
        return F.cross_entropy(logits, labels if shares else labels.flatten())  # (B, 1) too


def _init_linears(part: nn.Module, init_weight: Callable[[Tensor], Tensor]) -> None:
    """Start every linear map so, with zero biases; layer norms start as the identity."""
    for module in part.modules():
        if isinstance(module, nn.Linear):
            init_weight(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
