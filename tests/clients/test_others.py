"""captum, lightning, datasets, the pipeline of transformers, and DataParallel."""

import warnings

import numpy as np
import pytest
import torch
from torch.nn.parallel import scatter_gather

from videomae.video.writer import write_video

NEEDS = "needs the extra clients"


def test_captum_attributes_a_class_to_pixels(make, clips, library):
    captum = pytest.importorskip("captum.attr", reason=NEEDS)
    model = make.classifier(library).eval()
    gradients = captum.IntegratedGradients(lambda pixels: model(pixel_values=pixels).logits)
    shares, error = gradients.attribute(
        clips, target=1, n_steps=32, internal_batch_size=8, return_convergence_delta=True
    )
    assert shares.shape == clips.shape
    assert error.abs().max() < 0.1 * shares.abs().sum()


def test_captum_attributes_a_class_to_a_layer(make, clips, library):
    captum = pytest.importorskip("captum.attr", reason=NEEDS)
    model = make.classifier(library).eval()
    for layer in (model.videomae.embeddings, model.videomae.encoder.layer[0].layernorm_after):
        activation = captum.LayerActivation(lambda pixels: model(pixels).logits, layer)
        assert activation.attribute(clips).shape == (2, 32, 32)


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_and_loads_a_module(make, clips, tmp_path, library):
    lightning = pytest.importorskip("lightning", reason=NEEDS)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = make.classifier(library)
            self.save_hyperparameters(self.model.config.to_dict())

        def training_step(self, batch, _index):
            output = self.model(pixel_values=batch[0], labels=batch[1])
            self.log("accuracy", (output.logits.argmax(-1) == batch[1]).float().mean())
            return output.loss

        def predict_step(self, batch, _index):
            return self.model(batch[0])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    rows = [*zip(clips, torch.tensor([0, 2]), strict=True)]
    loader = torch.utils.data.DataLoader(rows, batch_size=2)
    settings = {"accelerator": "cpu", "max_epochs": 2, "logger": False, "precision": "bf16-mixed"}
    quiet = {"enable_progress_bar": False, "enable_model_summary": True}
    trainer = lightning.Trainer(default_root_dir=tmp_path, **settings, **quiet)
    module = Module()
    trainer.fit(module, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    (answer,) = trainer.predict(module, loader)
    assert answer.logits.shape == (2, 3)
    again = Module.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    for name, weight in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_datasets_maps_the_processor_over_clips(make, frames, library):
    datasets = pytest.importorskip("datasets", reason=NEEDS)
    processor = make.processor(library)
    rows = datasets.Dataset.from_dict({"clip": [clip.tolist() for clip in frames[:3]]})

    def process(row):
        clip = np.asarray(row["clip"], np.uint8)
        return {"pixel_values": processor(list(clip), return_tensors="np").pixel_values[0]}

    mapped = rows.map(process, remove_columns=["clip"]).with_format("torch")
    assert mapped[0]["pixel_values"].shape == (4, 3, 32, 32)
    logits = make.classifier(library).eval()(mapped[:2]["pixel_values"]).logits
    assert logits.shape == (2, 3)


def test_datasets_video_column_without_decoding_is_read_by_our_processor(frames, tmp_path):
    datasets = pytest.importorskip("datasets", reason=NEEDS)
    import videomae

    for index, clip in enumerate(frames[:2]):
        write_video(tmp_path / f"{index}.mp4", clip, fps=8)
    paths = [str(tmp_path / f"{index}.mp4") for index in range(2)]
    rows = datasets.Dataset.from_dict({"video": paths})
    rows = rows.cast_column("video", datasets.Video(decode=False))
    assert set(rows[0]["video"]) == {"path", "bytes"}
    processor = videomae.VideoMAEVideoProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    pixels = processor([row["video"] for row in rows], num_frames=4, return_tensors="pt")
    assert pixels["pixel_values"].shape[:3] == (2, 4, 3)


@pytest.mark.parametrize("kind", ["image_processor", "video_processor"])
def test_pipeline_of_transformers_with_our_processor_and_our_file(make, frames, tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason=NEEDS)
    import videomae

    write_video(tmp_path / "clip.mp4", frames[0], fps=8)
    model = make.classifier(videomae).eval()
    model.save_pretrained(tmp_path)
    name = "VideoMAEImageProcessor" if kind == "image_processor" else "VideoMAEVideoProcessor"
    processor = make.processor(videomae, name)
    pipeline = transformers.pipeline(
        "video-classification",
        model=transformers.AutoModelForVideoClassification.from_pretrained(tmp_path),
        device="cpu",
        **{kind: processor},
    )
    answers = pipeline(str(tmp_path / "clip.mp4"), top_k=3)
    ours = videomae.classify(
        tmp_path / "clip.mp4", model=model, processor=processor, frame_stride=1, dtype="float32"
    )
    assert [answer["label"] for answer in answers] == list(ours.labels)
    assert [answer["score"] for answer in answers] == pytest.approx(ours.scores, rel=1e-3)


def test_data_parallel_gathers_outputs(make, clips, monkeypatch, library):
    class Gather:  # torch's own is for GPUs alone
        @staticmethod
        def apply(_device, _dim, *parts):
            return torch.stack(parts) if not parts[0].dim() else torch.cat(parts)

    monkeypatch.setattr(scatter_gather, "Gather", Gather)
    model = make.classifier(library).eval()
    outputs = [model(clips, labels=torch.tensor([0, 2])), model(clips, labels=torch.tensor([1, 1]))]
    whole = scatter_gather.gather(outputs, "cpu")
    assert type(whole) is type(outputs[0])
    assert whole["loss"].shape == (2,)
    assert whole.logits.shape == (4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.nn.DataParallel(model)(clips).logits.shape == (2, 3)
