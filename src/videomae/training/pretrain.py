"""Masked pre-training: hide most of a clip, predict it, keep the encoder that learns from it."""

import random
from pathlib import Path

import torch
from torch import Tensor

from videomae.config import VideoMAEConfig
from videomae.errors import VideoError
from videomae.masking import MASKS
from videomae.modeling import VideoMAEForPreTraining
from videomae.training.data import Batch, ClipSource, list_videos, normalize
from videomae.training.loop import run_epochs
from videomae.training.report import open_output
from videomae.training.settings import PretrainSettings
from videomae.training.setup import Machine, save_model, sizes_of
from videomae.visualize import film_strip, hide, paste_reconstruction, save_picture, to_frames


def pretrain(settings: PretrainSettings) -> Path:
    """Pre-train on a folder of videos and return the folder of the finished model.

    Class folders are read but their names are not used. Writes into `settings.output`: the model
    (`model/`, opened by `from_pretrained`), `checkpoint.pt`, `log.jsonl`, `curve.png` and pictures
    of reconstructions. The method and its defaults are those of the paper, section 3 and appendix.
    """
    machine = Machine.choose(settings.device, settings.dtype)
    videos = list_videos(settings.data)
    open_output(settings)
    torch.manual_seed(settings.seed)
    model = make_model(settings).to(machine.device).train()
    source = ClipSource(videos, model.config, settings)

    def batch_loss(batch: Batch, rows: slice, step: int) -> Tensor:
        mask = draw_mask(settings, model.config, len(batch.pixels), step)[rows]
        with machine.autocast():
            loss: Tensor = model(normalize(batch.pixels[rows], machine.device), mask).loss
        return loss

    for end in run_epochs(settings, model, source, machine, batch_loss, title="pretrain"):
        if end.epoch % settings.draw_every_epochs == 0 or end.epoch == settings.epochs:
            draw(settings, model, source, machine, end.epoch)
            end.log.draw_curve()
    return save_model(model, settings.output)


def make_model(settings: PretrainSettings) -> VideoMAEForPreTraining:
    """The model at its start: a preset with fresh weights, or `settings.init`."""
    sizes = sizes_of(settings) | {"norm_pix_loss": settings.norm_pix_loss}
    if settings.init is not None:
        return VideoMAEForPreTraining.from_pretrained(settings.init, dtype="float32", **sizes)
    # The published encoder ends in a norm while it is pre-trained; the config calls that
    # "no mean pooling".
    config = VideoMAEConfig.preset(settings.preset, use_mean_pooling=False, **sizes)
    return VideoMAEForPreTraining(config)


def draw_mask(
    settings: PretrainSettings, config: VideoMAEConfig, batch_size: int, step: int
) -> Tensor:
    """The masks of one step: a function of the seed and the step alone."""
    seed = random.Random(f"{settings.seed} {step} mask").getrandbits(63)
    generator = torch.Generator().manual_seed(seed)
    return MASKS[settings.mask](
        config.grid, settings.mask_ratio, batch_size=batch_size, generator=generator
    )


@torch.no_grad()
def draw(
    settings: PretrainSettings,
    model: VideoMAEForPreTraining,
    source: ClipSource,
    machine: Machine,
    epoch: int,
) -> None:
    """A picture of the first readable video: as it is, as the model sees it, as it paints it."""
    for index in range(len(source.videos)):
        try:
            pixels = source.view_clips(index)
            break
        except VideoError as error:
            source.note_bad(index, error)
    mask = draw_mask(settings, model.config, batch_size=1, step=-1)
    model.eval()
    with machine.autocast():
        predictions = model(normalize(pixels, machine.device), mask).logits[0].float().cpu()
    model.train()
    clip = pixels[0].float() / 255  # (T, C, H, W)
    painted = paste_reconstruction(clip, mask[0], predictions, model.config)
    strip = film_strip(
        {
            "original": to_frames(clip),
            f"{settings.mask_ratio:.0%} hidden": to_frames(hide(clip, mask[0], model.config)),
            f"reconstructed, epoch {epoch}": to_frames(painted),
        }
    )
    folder = settings.output / "reconstructions"
    folder.mkdir(exist_ok=True)
    save_picture(folder / f"epoch_{epoch:04d}.png", strip)
