"""Fine-tuning by the Trainer of transformers, its data set as one writes it.

    python benchmarks/compare/transformers_trainer.py ENCODER TRAIN TEST OUTPUT --epochs 6

TRAIN and TEST are folders with a folder of videos per class. PyAV decodes each video from its
beginning to the last frame wanted, the image processor makes the pixels. Processor and model are
those of transformers, and nothing is of videomae; or, with `--classes videomae`, these two are of
videomae, and nothing else. Prints one line of JSON: the top-1 in percent.
"""

import argparse
import importlib
import json
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset


class Clips(Dataset[dict[str, Any]]):
    """A clip of each video: at a random place to learn from, in the middle to test on."""

    def __init__(self, folder: Path, processor: Any, num_frames: int, stride: int, is_test: bool):
        self.classes = sorted(place.name for place in folder.iterdir() if place.is_dir())
        self.videos = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((folder / name).glob("*.mp4"))
        ]
        self.processor, self.is_test = processor, is_test
        self.num_frames, self.stride = num_frames, stride

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label = self.videos[index]
        with av.open(str(path)) as container:
            span = (self.num_frames - 1) * self.stride + 1
            room = max(container.streams.video[0].frames - span, 0)
            start = room // 2 if self.is_test else random.randint(0, room)
            wanted = [start + i * self.stride for i in range(self.num_frames)]
            frames = []
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if number >= wanted[-1]:
                    break
        pixels = self.processor(frames, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": torch.tensor(label)}


def top_1(prediction: Any) -> dict[str, float]:
    """Percent of right answers."""
    right = np.argmax(prediction.predictions, axis=1) == prediction.label_ids
    return {"top_1": 100 * float(right.mean())}


def together(clips: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch."""
    return {name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("encoder", "train", "test", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--stride", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", choices=["transformers", "videomae"], default="transformers")
    asked = parser.parse_args()
    transformers.set_seed(asked.seed)  # of the new head; the Trainer takes its own below
    classes: Any = importlib.import_module(asked.classes)
    processor = classes.VideoMAEImageProcessor.from_pretrained(asked.encoder)
    num_frames = transformers.VideoMAEConfig.from_pretrained(asked.encoder).num_frames
    train, test = (
        Clips(folder, processor, num_frames, asked.stride, is_test)
        for folder, is_test in ((asked.train, False), (asked.test, True))
    )
    model = classes.VideoMAEForVideoClassification.from_pretrained(
        asked.encoder,
        num_labels=len(train.classes),
        use_mean_pooling=True,
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
    )
    steps = asked.epochs * (len(train) // asked.batch_size)
    arguments = transformers.TrainingArguments(
        output_dir=str(asked.output),
        seed=asked.seed,
        num_train_epochs=asked.epochs,
        per_device_train_batch_size=asked.batch_size,
        per_device_eval_batch_size=asked.batch_size,
        learning_rate=asked.lr,
        weight_decay=0.05,
        label_smoothing_factor=0.1,
        lr_scheduler_type="cosine",
        warmup_steps=steps // 10,
        dataloader_drop_last=True,
        dataloader_num_workers=2,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        bf16=asked.bf16,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=test,
        data_collator=together,
        compute_metrics=top_1,
    )
    trainer.train()
    trainer.args.dataloader_drop_last = False
    found = trainer.evaluate()
    trainer.save_model(str(asked.output / "model"))
    model.config.save_pretrained(str(asked.output / "model"))  # not by it for others' models
    processor.save_pretrained(str(asked.output / "model"))
    print(json.dumps({"top_1": found["eval_top_1"]}))


if __name__ == "__main__":
    main()
