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
# # A long video: what happens when
#
# A classifier names one short clip. To find out what happens when in a long video, it is moved along the video in
# steps. This notebook makes a video of many scenes, finds the scenes with their labels, and writes subtitles and a
# picture of it.
#
# Nothing is downloaded. The video is rendered here, and the model comes with the package.

# %% tags=["parameters"]
MODEL = "actions-tiny"  # for real videos: "MCG-NJU/videomae-base-finetuned-kinetics"
NUM_SCENES = 6

# %% [markdown]
# ## A video
#
# In each scene a person does something and undoes it, twice, without a cut: opens a door, closes it, opens it. The
# video cuts to another person and another place from scene to scene. None of them was seen in training. We know what
# is shown when, so we can check the answer later.

# %%
import warnings
from pathlib import Path

import numpy as np

from videomae.rendering.actions import render_clip
from videomae.video.reader import probe
from videomae.video.writer import write_video

warnings.filterwarnings("ignore", message="IProgress not found")  # no bars are needed here
WORK = Path("long-video-work")
FPS, VIDEO, CLIP_SECONDS = 16, WORK / "video.mp4", 2
PAIRS = [
    ("open_door", "close_door"),
    ("lie_down", "get_up"),
    ("pick_up", "put_down"),
    ("climb_up", "climb_down"),
    ("sit_down", "stand_up"),
    ("put_on_hat", "take_off_hat"),
]
clips, names = [], []
for number, (action, opposite) in enumerate(PAIRS[:NUM_SCENES]):
    for name in (action, opposite, action, opposite):
        clips.append(render_clip(name, seed=number, split="test"))  # one seed: the same person
        names.append(name)
write_video(VIDEO, np.concatenate(clips), fps=FPS)
info = probe(VIDEO)
print(
    f"{info.num_frames} frames, {info.num_frames / FPS:.0f} seconds, {info.width} x {info.height}"
)
print(", ".join(names))

# %% [markdown]
# ## The timeline
#
# `timeline` moves a window along the video; each frame is decoded once, and memory stays small, however long the video
# is. On the command line it is `videomae timeline long-video-work/video.mp4 --output long`, which writes all the files
# below at once.

# %%
from IPython.display import Image as Picture

from videomae import timeline

found = timeline(VIDEO, model=MODEL, hop_seconds=0.25)
print(
    len(found.windows),
    "windows, the first from",
    found.windows[0].start_seconds,
    "s to",
    round(found.windows[0].end_seconds, 2),
    "s",
)
Picture(filename=found.save(WORK / "timeline.png"), width=900)

# %% [markdown]
# Each row is a label, its height the score over time. A bar under it marks a segment: the label holds there.
#
# ## Segments
#
# The same in numbers. The last column says what the middle of the segment really shows.


# %%
def shown_at(seconds):
    """What the video really shows at a time."""
    return names[min(int(seconds / CLIP_SECONDS), len(names) - 1)]


for segment in found.segments:
    truth = shown_at((segment.start_seconds + segment.end_seconds) / 2)
    print(
        f"{segment.start_seconds:6.1f} to {segment.end_seconds:5.1f} s"
        f"  {segment.label:20} {segment.score:.2f}  {truth}"
    )

# %% [markdown]
# How often is the best label of a window right? Most windows see the end of one action and the beginning
# of the next; they are counted by what is in their middle.

# %%
best = [found.labels[k] for k in found.scores.argmax(axis=1)]
middles = [(window.start_seconds + window.end_seconds) / 2 for window in found.windows]
right = [label == shown_at(middle) for label, middle in zip(best, middles, strict=True)]
print(f"{sum(right)} of {len(right)} windows are right, {np.mean(right):.0%}")
print(f"guessing one of {len(found.labels)} labels: {1 / len(found.labels):.0%}")

# %% [markdown]
# ## When does a label hold?
#
# A label begins to hold where its score reaches `enter`, and holds as long as it stays above `leave`. Segments that
# are too short are left out. Raise `enter` for fewer segments that are more often right.

# %%
from dataclasses import replace

from videomae.footage.segments import SegmentRules

for enter in (0.3, 0.5, 0.7, 0.9):
    segments = replace(found, rules=SegmentRules(enter=enter, leave=0.8 * enter)).segments
    good = sum(s.label == shown_at((s.start_seconds + s.end_seconds) / 2) for s in segments)
    print(f"enter={enter}: {len(segments)} segments, {good} of them right")

# %% [markdown]
# ## Files for other programs
#
# Subtitles that any player shows, a table of the segments, and the video with the labels drawn in.

# %%
print(found.save(WORK / "video.vtt").read_text()[:300])
print(found.save(WORK / "segments.csv").read_text()[:300])

# %%
from PIL import Image

from videomae.video.reader import read_frames

drawn = found.annotate(VIDEO, WORK / "labelled.mp4")


def animation(path, frames, fps=8):
    """Show frames (T, H, W, 3) as a moving picture: an animated PNG of few colours."""
    count, height, width, _ = frames.shape
    strip = Image.fromarray(frames.reshape(count * height, width, 3)).quantize(64, dither=0)
    images = [strip.crop((0, k * height, width, (k + 1) * height)) for k in range(count)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=1000 // fps, loop=0)
    return Picture(filename=path)


animation(WORK / "labelled.png", read_frames(drawn, range(0, min(info.num_frames, 256), 8)), fps=2)

# %% [markdown]
# ## What next?
#
# The same for a camera or a stream, for videos of hours, and what is unusual in a video without any labels
# (`novelty=True`): [long videos](../docs/timeline.md). With a model of [your own classes](finetune.ipynb), pass its
# folder as `model`.
