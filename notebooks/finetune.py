# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fine-tune on your own classes
#
# You have videos in some classes, and you want a model that names the class of a new video. This notebook goes
# the way of the video classification guide of transformers, step by step and in the same order: data, label maps,
# processor, transforms, a look at a clip, training, evaluation, inference, sharing.
#
# The training is done twice: by `videomae finetune`, and by `transformers.Trainer` with the model class of this
# package. Take the way that you like better; both end in the same kind of model folder.
#
# Nothing is downloaded. The videos are rendered here, and the encoder comes with the package.

# %% tags=["parameters"]
ENCODER = "actions-tiny-pretrain"  # for real videos: "MCG-NJU/videomae-base"
CLIPS, TEST_CLIPS = 40, 20  # videos of each class, to train on and to test on
EPOCHS = 4  # of training all layers
BATCH_SIZE = 16

# %% [markdown]
# ## 1. Data
#
# Six of the twenty classes of the built-in set `actions`, which shows rendered people. The classes come in pairs, such
# as `open_door` and `close_door`: one is the other played backwards. So a single frame cannot tell them apart, and a
# model has to look at the motion. The people and the places of the test videos are in no training video.
#
# The videos lie in a folder per class, inside a folder per split. Put your own videos into folders like these.

# %%
import shutil
import warnings
from pathlib import Path

from videomae.rendering.actions import render_clip
from videomae.video.writer import write_video

warnings.filterwarnings("ignore", message="IProgress not found")  # no bars are needed here
CLASSES = ["climb_down", "climb_up", "close_door", "get_up", "lie_down", "open_door"]
WORK = Path("finetune-work")  # all that this notebook writes; made anew by each run
shutil.rmtree(WORK, ignore_errors=True)
DATA = WORK / "videos"

for split, count in (("train", CLIPS), ("test", TEST_CLIPS)):
    for place, name in enumerate(CLASSES):
        for number in range(count):
            clip = render_clip(name, seed=(place, number), split=split)  # (T, H, W, 3) uint8
            path = DATA / split / name / f"{number:03}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, clip, fps=16)
    print(f"{split}: {len(list(DATA.glob(f'{split}/*/*.mp4')))} videos, the last one: {path}")

# %% [markdown]
# One video of each class. The lower row has the opposite of the upper row:

# %%
import numpy as np
from IPython.display import Image as Picture
from PIL import Image

from videomae.data.manifest import load_videos
from videomae.report.pictures import captioned
from videomae.video.reader import read_frames


def animation(path, frames, fps=8):
    """Show frames (T, H, W, 3) as a moving picture: an animated PNG of few colours."""
    count, height, width, _ = frames.shape
    strip = Image.fromarray(frames.reshape(count * height, width, 3)).quantize(64, dither=0)
    images = [strip.crop((0, k * height, width, (k + 1) * height)) for k in range(count)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=1000 // fps, loop=0)
    return Picture(filename=path)


def tile(video, caption):
    """Every second frame of a video, three times as large, with a line of text above."""
    frames = read_frames(video.path, range(0, 32, 2)).repeat(3, axis=1).repeat(3, axis=2)
    return np.stack([captioned(frame, caption) for frame in frames])


train_videos, test_videos = load_videos(DATA, "train"), load_videos(DATA, "test")
first = {video.label: video for video in reversed(test_videos.items)}
upper, lower = ["open_door", "climb_up", "lie_down"], ["close_door", "climb_down", "get_up"]
rows = [np.concatenate([tile(first[name], name) for name in row], axis=2) for row in (upper, lower)]
animation(WORK / "classes.png", np.concatenate(rows, axis=1))

# %% [markdown]
# Have every file opened once before you train. `prepare` counts the frames, and lists what is broken, doubled or
# missing. On the command line this is
# `videomae prepare finetune-work/videos --output finetune-work/checked`.

# %%
from videomae.data.prepare import prepare
from videomae.settings import PrepareSettings

checked = prepare(PrepareSettings(DATA, WORK / "checked"))
for name, value in checked.survey.summary():
    print(f"{name:12} {value}")

# %% [markdown]
# ## 2. Label maps
#
# The model counts classes, people name them. Both maps go into the model's `config.json`, so that whoever opens the
# model later gets the names. The numbers follow the order of the names.

# %%
id2label = dict(enumerate(train_videos.classes))
label2id = {name: number for number, name in id2label.items()}
id2label

# %% [markdown]
# ## 3. Processor and model
#
# The processor knows how frames become numbers: their size, their mean and deviation. The model has the encoder that
# was pre-trained, and a new head for your classes. A warning says that the head is new; this is what we want here,
# so it is not shown.

# %%
from videomae import VideoMAEForVideoClassification, VideoMAEImageProcessor

processor = VideoMAEImageProcessor.from_pretrained(ENCODER)
with warnings.catch_warnings(action="ignore"):
    model = VideoMAEForVideoClassification.from_pretrained(
        ENCODER, id2label=id2label, label2id=label2id, use_mean_pooling=True
    )
config = model.config
print(f"{model.num_parameters():,} parameters")
print(f"a clip is {config.num_frames} frames of {config.image_size} px")
print(f"from one of its frames to the next: {config.frame_stride} frames of the video")

# %% [markdown]
# ## 4. Transforms
#
# In training, each clip is cut a little differently and half of the clips are mirrored, so that the model does not
# learn the pictures by heart. Do not mirror where left and right are two classes. In the test, the whole frame is
# used. The transforms of torchvision draw once for a whole clip, as they have to: a clip whose frames are cut
# differently shakes.

# %%
import random

import torch
from torchvision.transforms import v2

from videomae.processing.sampling import clip_indices, random_start
from videomae.video.reader import VideoReader

size = config.image_size
to_numbers = [
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize(processor.image_mean, processor.image_std),
]
train_transform = v2.Compose(
    [v2.RandomResizedCrop(size, scale=(0.6, 1)), v2.RandomHorizontalFlip(), *to_numbers]
)
test_transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size), *to_numbers])


class Clips(torch.utils.data.Dataset):
    """A clip of each video as the model takes it, with its class number."""

    def __init__(self, videos, transform, generator=None):
        self.paths = [video.path for video in videos.items]
        self.labels = videos.class_numbers()
        self.transform, self.generator = transform, generator

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        sampling = {"num_frames": config.num_frames, "frame_stride": config.frame_stride}
        with VideoReader(self.paths[index]) as reader:
            count, start = reader.info.num_frames, None  # without a start, the middle of the video
            if self.generator:
                start = random_start(count, **sampling, generator=self.generator)
            frames = reader.read(clip_indices(count, **sampling, start=start))  # (T, H, W, C)
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, C, H, W)
        return {"pixel_values": self.transform(clip), "labels": self.labels[index]}


train_clips = Clips(train_videos, train_transform, random.Random(0))
test_clips = Clips(test_videos, test_transform)
print(len(train_clips), "clips to train on,", len(test_clips), "to test on")
print(tuple(train_clips[0]["pixel_values"].shape), "frames, channels, height, width")

# %% [markdown]
# ## 5. Look at a clip
#
# Always look at what the model will see. Three times the same video, after the transforms of training:

# %%
from videomae.processing.views import shown
from videomae.report.pictures import film_strip, save_picture
from videomae.report.reconstruction import to_frames

torch.manual_seed(1)
index = len(train_clips) // 2
rows = {}
for number in (1, 2, 3):
    item = train_clips[index]
    frames = to_frames(shown(item["pixel_values"], processor))  # back from numbers to colours
    rows[f"{id2label[item['labels']]}, draw {number}"] = frames
Picture(filename=save_picture(WORK / "draws.jpg", film_strip(rows)))

# %% [markdown]
# ## 6. Train
#
# ### With this package
#
# One command does all of the steps above. First the head alone: the encoder stays as it is, each video is looked at
# once, and a linear map is fitted to the features. This takes seconds and shows whether the classes can be learned.
# Then all layers, from there. On the command line:
#
# ```bash
# videomae finetune --data finetune-work/videos --init actions-tiny-pretrain --train-only head --output head
# videomae finetune --data finetune-work/videos --init head/model --epochs 4 --batch-size 16 --flip --output all
# ```
#
# The same in Python:

# %%
from videomae.settings import FinetuneSettings
from videomae.training.finetune import finetune

head = finetune(FinetuneSettings(DATA, init=ENCODER, train_only="head", output=WORK / "head"))
print("the head alone:", head)

# %%
everything = finetune(
    FinetuneSettings(
        DATA,
        init=str(WORK / "head" / "model"),
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        flip=True,
        log_every_steps=15,
        output=WORK / "all",
    )
)
print("all layers:", everything)

# %% [markdown]
# ### With transformers.Trainer
#
# The model class of this package takes the place of the one of transformers; the rest is as the guide has it. The
# training goes from the pre-trained encoder and a new head.

# %%
import transformers

transformers.utils.logging.disable_progress_bar()
transformers.set_seed(0)


def accuracy(predicted):
    """The share of the videos whose class has the highest score."""
    return {"accuracy": (predicted.predictions.argmax(axis=1) == predicted.label_ids).mean()}


trainer = transformers.Trainer(
    model,
    transformers.TrainingArguments(
        WORK / "trainer",
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=BATCH_SIZE,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.05,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="epoch",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
    ),
    train_dataset=train_clips,
    eval_dataset=test_clips,
    processing_class=processor,
    compute_metrics=accuracy,
)
_ = trainer.train()

# %% [markdown]
# Save the model with its processor, so that the folder has all that is needed to use it:

# %%
model.save_pretrained(WORK / "trainer" / "model")
_ = processor.save_pretrained(WORK / "trainer" / "model")

# %% [markdown]
# ## 7. Evaluate
#
# All three models on the test videos, each video counted once. Guessing is right once in as many times as there are
# classes. The command is `videomae evaluate --data finetune-work/videos --model finetune-work/all/model`.

# %%
from videomae.evaluation.evaluate import evaluate
from videomae.settings import EvaluateSettings

print(f"guessing: top-1 {100 / len(id2label):.2f} %")
for name in ("head", "all", "trainer"):
    result = evaluate(EvaluateSettings(DATA, model=str(WORK / name / "model")))
    print(f"{name}: {result}")

# %% [markdown]
# Which classes are taken for which? Look at the pairs: who confuses `open_door` with `close_door` sees the door, but
# not the direction of the motion.

# %%
Picture(filename=WORK / "all" / "confusion.png", width=640)

# %% [markdown]
# ## 8. Infer
#
# A video file in, labels with their scores out. `classify` takes one path or a list of them.

# %%
from videomae import classify

chosen = [first[name].path for name in ("open_door", "get_up", "climb_down")]
rows = {}
for result in classify(chosen, model=WORK / "all" / "model", top_k=3):
    answer = ", ".join(
        f"{label} {score:.0%}" for label, score in zip(result.labels, result.scores, strict=True)
    )
    print(f"{result.path}: {answer}")
    rows[f"is {result.path.parent.name}; answer: {answer}"] = read_frames(result.path, range(32))
Picture(filename=save_picture(WORK / "answers.jpg", film_strip(rows)))

# %% [markdown]
# The same by hand, as the guide does it: frames, processor, model, softmax.

# %%
frames = read_frames(chosen[0], clip_indices(32, num_frames=16, frame_stride=2))
inputs = processor(list(frames), return_tensors="pt")
model = VideoMAEForVideoClassification.from_pretrained(WORK / "all" / "model")
with torch.inference_mode():
    scores = model(**inputs).logits.softmax(-1)[0]
print(f"{model.config.id2label[int(scores.argmax())]} {float(scores.max()):.0%}")

# %% [markdown]
# ## 9. Share
#
# The model is a folder with the file names and the keys of transformers. So who does not have this package can use it
# too, with the same answer:

# %%
folder = WORK / "all" / "model"
for path in sorted(folder.iterdir()):
    print(f"{path.name:30} {path.stat().st_size:>9,} bytes")
theirs = transformers.VideoMAEForVideoClassification.from_pretrained(folder).eval()
with torch.inference_mode():
    difference = (theirs(**inputs).logits - model(**inputs).logits).abs().max()
print(f"the largest difference of a logit in transformers: {float(difference):.1e}")

# %% [markdown]
# `README.md` is a model card, already filled in. To put the folder on the hub, log in once and say
#
# ```python
# model.push_to_hub("your-name/your-model")
# processor.push_to_hub("your-name/your-model")
# ```
#
# To show the model to somebody in a browser, or to let programs ask it:
#
# ```bash
# videomae serve finetune-work/all/model
# ```
