"""Masked pre-training: hide most of a clip, predict it, keep the encoder that learns from it."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.data.manifest import Videos, load_videos
from videomae.errors import VideoError, going_on
from videomae.evaluation.sharding import evaluating, views_of
from videomae.masking import MASKS, hidden_share, running_cell_mask
from videomae.model.modeling import VideoMAEForPreTraining
from videomae.processing.processors import VideoMAEImageProcessor
from videomae.processing.views import ViewMaker, normalize, shown
from videomae.report.card import model_card
from videomae.report.pictures import film_strip, save_picture
from videomae.report.reconstruction import hide, paste_reconstruction, to_frames
from videomae.settings import PretrainSettings
from videomae.training.checkpoint import is_finished, run_processor, save_model
from videomae.training.data import Batch, ClipSource
from videomae.training.defaults import decide
from videomae.training.estimate import DryRun
from videomae.training.log import finish, keep, own_output, say, say_model
from videomae.training.loop import Training


def pretrain(settings: PretrainSettings) -> Path:
    """Pre-train on videos and return the folder of the finished model.

    Labels are not used. Writes into `settings.output`: the model (`model/`, opened by
    `from_pretrained`), those of `keep_every_epochs` (`epoch_0010/`), `checkpoints/`, `log.jsonl`,
    `index.html` with curves and pictures of reconstructions, and what the run was made of (see
    `open_output`). The method and its defaults are those of the paper, section 3 and appendix;
    `decoder_mask_ratio` adds the dual masking of VideoMAE V2.

    Raises ConfigError, with nothing written, where the run cannot begin; one that is finished
    stays as it is.
    """
    machine = Machine.start(settings.device, settings.dtype, parallel=settings.parallel)
    with own_output(settings, machine, "pretrain"):
        training, processor = prepare(settings, machine)
        _train(training, processor, machine)
    return settings.output / "model"


def _train(training: Training, processor: VideoMAEImageProcessor, machine: Machine) -> None:
    """Make the steps that are left, and the products of each epoch."""
    settings, model, videos = training.settings, training.model, training.source.videos
    assert isinstance(settings, PretrainSettings)
    if is_finished(settings, training.first_step, training.num_steps):
        keep(settings, machine)
        return
    for end in training.epochs():
        if end.epoch % settings.draw_every_epochs == 0 or end.epoch == settings.epochs:
            maker = ViewMaker(model.config, processor, on_damage=settings.on_damage)
            draw(settings, model, maker, videos, machine, end.epoch)
            end.log.draw_page()
        if settings.keep_every_epochs and end.epoch % settings.keep_every_epochs == 0:
            warmup = min(settings.num_warmup_epochs, end.epoch)
            kept = dataclasses.replace(settings, epochs=end.epoch, warmup_epochs=warmup)
            card = model_card(kept, model)
            save_model(model, processor, machine, settings.output / f"epoch_{end.epoch:04d}", card)
    card = model_card(settings, model)
    save_model(model, processor, machine, settings.output / "model", card)
    finish(settings, machine)


def dry_run(settings: PretrainSettings) -> DryRun:
    """Read the data, make the model and compute a few real steps, writing nothing."""
    machine = Machine.start(settings.device, settings.dtype, parallel=settings.parallel)
    return prepare(settings, machine)[0].dry_run()


def prepare(
    settings: PretrainSettings, machine: Machine
) -> tuple[Training, VideoMAEImageProcessor]:
    """The run made ready, with nothing written, and the processor of its model."""
    say(f"reading the list of videos in {settings.data}", machine)
    videos = load_videos(
        settings.data, settings.split, labelled=False, allow_addresses=settings.allow_addresses
    )
    say_model(settings, machine)
    torch.manual_seed(settings.seed)
    model = make_model(settings).train()
    settings = decide(settings, len(videos), model.config)
    config, processor = model.config, run_processor(settings, model.config)
    source = ClipSource(videos, config, settings)

    def batch_loss(network: nn.Module, batch: Batch) -> Tensor:
        pixels = normalize(batch.pixels, processor, machine.device)
        masks = draw_masks(settings, config, batch.clips_per_step, batch.step)
        hidden, undecoded = (m if m is None else m[list(batch.rows)] for m in masks)
        loss: Tensor = network(pixels, hidden, decoder_bool_masked_pos=undecoded).loss
        return loss

    facts: dict[str, Any] = {
        "hidden_share": hidden_share(settings.mask, config.grid, settings.mask_ratio)
    }
    if settings.norm_pix_loss:
        # Of an even grey: the mean square of numbers whose mean is 0 and unbiased variance 1.
        height, width = config.patch_hw
        facts["baseline_loss"] = 1 - 1 / (config.tubelet_size * height * width)
    training = Training(settings, model, source, machine, batch_loss, title="pretrain", facts=facts)
    return training, processor


def make_model(settings: PretrainSettings) -> VideoMAEForPreTraining:
    """The model at its start: a preset with fresh weights, or `settings.init`."""
    values = settings.sizes | {"norm_pix_loss": settings.norm_pix_loss}
    if settings.decoder_depth is not None:
        values["decoder_num_hidden_layers"] = settings.decoder_depth
    if settings.decoder_width is not None:
        values["decoder_hidden_size"] = settings.decoder_width
        values["decoder_intermediate_size"] = 4 * settings.decoder_width
        values["decoder_num_attention_heads"] = next(
            heads
            for heads in range(max(settings.decoder_width // 64, 1), 0, -1)
            if settings.decoder_width % heads == 0
        )
    if settings.init is not None:
        return VideoMAEForPreTraining.from_pretrained(settings.init, dtype="float32", **values)
    # The published encoder ends in a norm while it is pre-trained; the config calls that
    # "no mean pooling".
    config = VideoMAEConfig.preset(settings.preset, use_mean_pooling=False, **values)
    return VideoMAEForPreTraining(config)


def draw_masks(
    settings: PretrainSettings, config: VideoMAEConfig, num_clips: int, step: int
) -> tuple[Tensor, Tensor | None]:
    """Masks of what is hidden from the encoder and what is not decoded, for all clips of a step.

    A function of the seed and the step alone: each process takes the rows of its own clips.
    """
    seed = random.Random(f"{settings.seed} {step} mask").getrandbits(63)
    generator = torch.Generator().manual_seed(seed)
    hidden = MASKS[settings.mask](
        config.grid, settings.mask_ratio, batch_size=num_clips, generator=generator
    )
    if settings.decoder_mask_ratio is None:
        return hidden, None
    return hidden, running_cell_mask(
        config.grid, settings.decoder_mask_ratio, batch_size=num_clips, generator=generator
    )


def draw(
    settings: PretrainSettings,
    model: VideoMAEForPreTraining,
    maker: ViewMaker,
    videos: Videos,
    machine: Machine,
    epoch: int,
) -> None:
    """A picture of the first readable video: as it is, as the model sees it, as it reconstructs it.

    All processes compute it, since each may hold a piece of the model; the first one draws.
    """
    for video in videos.items[:100]:
        try:
            pixels = views_of(video, maker)
            break
        except VideoError:  # counted where it is trained on
            continue
    else:
        return
    mask, _ = draw_masks(settings, model.config, 1, step=-1)
    with evaluating(model), machine.autocast():
        predictions = model(pixels.to(machine.device), mask).logits[0].float().cpu()
    if not machine.is_main:
        return
    clip = shown(pixels[0], maker.processor)  # (T, C, H, W)
    reconstructed = paste_reconstruction(clip, mask[0], predictions, model.config)
    hidden = f"{100 * float(mask.float().mean()):.3g} % hidden"
    strip = film_strip(
        {
            "original": to_frames(clip),
            hidden: to_frames(hide(clip, mask[0], model.config)),
            f"reconstructed, epoch {epoch}": to_frames(reconstructed),
        }
    )
    picture = settings.output / "reconstructions" / f"epoch_{epoch:04d}.png"
    with going_on(str(picture)):
        save_picture(picture, strip)
