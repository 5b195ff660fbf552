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
# # Pre-train, and look at reconstructions
#
# VideoMAE learns from videos without labels: it hides most of a clip, and the model has to predict what is hidden.
# This notebook pre-trains a small model for a short time, and shows what it has learned by then, beside the model
# that comes with the package and has learned for much longer.
#
# Nothing is downloaded. The videos are rendered here.

# %% tags=["parameters"]
SHIPPED = "actions-tiny-pretrain"  # for real videos: "MCG-NJU/videomae-base"
CLIPS, TEST_CLIPS = 400, 200  # rendered videos
EPOCHS = 25
BATCH_SIZE = 32
WORKERS = None  # processes that render; None: one per core

# %% [markdown]
# ## Videos
#
# Any folder of videos will do. Here it is the built-in set `actions`: rendered people who sit down, open doors, throw
# balls. It has a folder per class, but no label is used in this notebook.

# %%
import shutil
import warnings
from pathlib import Path

from videomae.rendering.actions import render_dataset
from videomae.settings import ActionsSettings

warnings.filterwarnings("ignore", message="IProgress not found")  # no bars are needed here
DATA, WORK = Path("actions"), Path("pretrain-work")
shutil.rmtree(WORK, ignore_errors=True)  # what an earlier run of this notebook has left
paths = render_dataset(ActionsSettings(DATA, clips=CLIPS, test_clips=TEST_CLIPS, workers=WORKERS))
test_paths = [path for path in paths if path.parts[-3] == "test"]
print(len(paths) - len(test_paths), "videos to learn from,", len(test_paths), "others to look at")

# %% [markdown]
# ## What is hidden
#
# A clip is cut into tubelets: cells of 8 x 8 pixels over two frames. In a **tube mask**, the same cells are hidden in
# all frames. So nothing can be copied from the frame before; to fill in a moving arm, a model has to know how arms
# move. The paper hides nine cells of ten.

# %%
from IPython.display import Image as Picture

from videomae import VideoMAEConfig, VideoMAEForPreTraining, reconstruct
from videomae.report.pictures import film_strip, save_picture


def show(name, rows):
    """Show clips below each other, time to the right."""
    return Picture(filename=save_picture(WORK / f"{name}.jpg", film_strip(rows)))


config = VideoMAEConfig.preset("tiny", image_size=64)
untrained = VideoMAEForPreTraining(config).eval()
print(
    f"{untrained.num_parameters():,} parameters; tubelets along time, height, width: {config.grid}"
)

WORK.mkdir()
clip = next(path for path in test_paths if path.parent.name == "sit_down")
at_start = reconstruct(clip, model=untrained, mask="tube", mask_ratio=0.9)
show("mask", {"a clip": at_start.original, "what the model sees of it": at_start.masked})

# %% [markdown]
# ## Pre-train
#
# The loss is the error of the predicted pixels, after each tubelet was brought to mean 0 and deviation 1. A model that
# predicts nothing has a loss of about 1. What lies below has to come from what is visible.
#
# `decoder_mask_ratio` lets the decoder predict only half of the hidden tubelets in each step, as VideoMAE V2 does,
# which makes a step faster. The same on the command line:
#
# ```bash
# videomae pretrain --data actions --preset tiny --image-size 64 --mask tube --mask-ratio 0.9 --output run
# ```

# %%
from videomae.settings import PretrainSettings
from videomae.training.pretrain import pretrain

model_dir = pretrain(
    PretrainSettings(
        DATA,
        preset="tiny",
        image_size=64,
        mask="tube",
        mask_ratio=0.9,
        decoder_mask_ratio=0.5,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        lr=6e-3,
        log_every_steps=10,
        save_every_steps=10_000,
        output=WORK / "run",
    )
)

# %% [markdown]
# The run has left its curve, its settings, and a page with everything (`pretrain-work/run/index.html`).

# %%
Picture(filename=WORK / "run" / "loss.png", width=640)

# %% [markdown]
# ## Reconstructions
#
# One clip, with the same mask, by three models: an untrained one, ours, and the one that comes with the package. The
# people and places of the test videos are new to all of them.

# %%
models = {"untrained": untrained, "this run": model_dir, "shipped": SHIPPED}
options = {"mask": "tube", "mask_ratio": 0.9}
found = {name: reconstruct(clip, model=model, **options) for name, model in models.items()}

rows = {"a clip": at_start.original, "what the models see": at_start.masked}
show("models", rows | {name: result.reconstructed for name, result in found.items()})

# %% [markdown]
# First a model learns what fills most of a picture: that grounds are smooth and do not move. People come much later,
# and from one visible cell in ten they stay a guess. The loss over some videos, all of them new to the models:

# %%
for name, model in models.items():
    losses = [result.loss for result in reconstruct(test_paths[::20], model=model, **options)]
    print(f"{name:10} mean loss {sum(losses) / len(losses):.3f} on {len(losses)} test videos")

# %% [markdown]
# The same as a moving picture:

# %%
from PIL import Image

from videomae.report.pictures import side_by_side


def animation(path, frames, fps=8):
    """Show frames (T, H, W, 3) as a moving picture: an animated PNG of few colours."""
    count, height, width, _ = frames.shape
    strip = Image.fromarray(frames.reshape(count * height, width, 3)).quantize(64, dither=0)
    images = [strip.crop((0, k * height, width, (k + 1) * height)) for k in range(count)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=1000 // fps, loop=0)
    return Picture(filename=path)


shipped = found["shipped"]
clips = {"a clip": shipped.original, "visible": shipped.masked, "shipped": shipped.reconstructed}
animation(WORK / "moving.png", side_by_side(clips))

# %% [markdown]
# ## A trap
#
# The pictures in papers take the brightness and the contrast of the hidden tubelets from the original clip. That looks
# much better than the model is: even a model that has learned nothing shows a blurred original. All pictures above
# use the visible tubelets alone. Ask for `rendering="paper"` only to compare with published pictures.

# %%
trap = reconstruct(clip, model=untrained, rendering="paper", **options)
plain, paper = "untrained, from what is visible", 'untrained, rendering="paper"'
show("trap", {plain: at_start.reconstructed, paper: trap.reconstructed})

# %% [markdown]
# ## Easier masks
#
# With fewer hidden cells, or with cells hidden at random in each frame, there is more to copy, and less to learn.

# %%
easier = {
    "tube, 90 % hidden": {"mask": "tube", "mask_ratio": 0.9},
    "tube, 60 % hidden": {"mask": "tube", "mask_ratio": 0.6},
    "random, 90 % hidden": {"mask": "random", "mask_ratio": 0.9},
}
rows = {}
for name, mask in easier.items():
    result = reconstruct(clip, model=SHIPPED, **mask)
    rows[f"{name}; loss {result.loss:.2f}"] = result.reconstructed
show("easier", rows)

# %% [markdown]
# ## What next?
#
# The encoder is now a start for fine-tuning, or a source of features. How good are they? A probe says so in a minute:
#
# ```bash
# videomae linear-probe --data actions --model pretrain-work/run/model
# videomae finetune --data actions --init pretrain-work/run/model --output finetuned
# ```
#
# Go on with [fine-tuning on your classes](finetune.ipynb) or with [embeddings](embeddings.ipynb).
