from pathlib import Path

import torch

from videomae.compute.distributed import Machine
from videomae.config import VideoMAEConfig
from videomae.model.modeling import VideoMAEForPreTraining
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor
from videomae.processing.views import find_processor
from videomae.settings import PretrainSettings
from videomae.training.checkpoint import run_processor, save_model


def test_the_saved_model_comes_with_its_processor_and_card(tmp_path: Path) -> None:
    config = VideoMAEConfig.preset(
        "tiny", image_size=(16, 24), num_frames=4, num_hidden_layers=2, use_mean_pooling=False
    )
    model = VideoMAEForPreTraining(config).train()
    machine = Machine.start("cpu", "float32")
    chosen = run_processor(PretrainSettings(), config)
    folder = save_model(model, chosen, machine, tmp_path / "model", "# What it is\n")
    assert find_processor(folder, config) == chosen
    processor = VideoMAEVideoProcessor.from_pretrained(folder)
    assert processor.size == processor.crop_size == {"height": 16, "width": 24}
    assert processor.do_convert_rgb
    assert (folder / "README.md").read_text() == "# What it is\n"
    saved = VideoMAEForPreTraining.from_pretrained(folder).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    assert model.training  # goes on as it was


def test_a_run_goes_on_with_the_processor_of_its_start(tmp_path: Path) -> None:
    stored = VideoMAEImageProcessor(size=20, crop_size=16, image_mean=0.5, resample="bicubic")
    stored.save_pretrained(tmp_path)
    settings = PretrainSettings(init=str(tmp_path))
    assert run_processor(settings, VideoMAEConfig.preset("tiny", image_size=16)) == stored
    wide = run_processor(settings, VideoMAEConfig.preset("tiny", image_size=(16, 32)))
    assert wide.size == wide.crop_size == {"height": 16, "width": 32}
    assert (wide.image_mean, wide.resample) == (0.5, stored.resample)
