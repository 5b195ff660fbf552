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
# # Embeddings, nearest neighbours, and a probe with 20 labels per class
#
# An embedding is a short vector of numbers that stands for a video. Similar videos have similar vectors. So you can
# search a collection without any labels, and with a few labels you can make a classifier in seconds, without training
# the network.
#
# Nothing is downloaded. The videos are rendered here, and both models come with the package.

# %% tags=["parameters"]
PRETRAINED = "actions-tiny-pretrain"  # has seen no labels; for real videos: "MCG-NJU/videomae-base"
FINETUNED = "actions-tiny"  # knows the twenty classes
CLIPS, TEST_CLIPS = 400, 200  # rendered videos of twenty classes: 20 labels and 10 tests per class
LABELS_PER_CLASS = [1, 2, 5, 10, 20]
WORKERS = None  # processes that render; None: one per core

# %% [markdown]
# ## Videos
#
# The built-in set `actions`: rendered people in twenty classes. The classes come in pairs, such as `sit_down` and
# `stand_up`: one is the other played backwards. The people and the places of the test videos are in no training video.

# %%
import warnings
from pathlib import Path

from videomae.data.manifest import load_videos
from videomae.rendering.actions import render_dataset
from videomae.settings import ActionsSettings

warnings.filterwarnings("ignore", message="IProgress not found")  # no bars are needed here
DATA, WORK = Path("actions"), Path("embeddings-work")
WORK.mkdir(exist_ok=True)
render_dataset(ActionsSettings(DATA, clips=CLIPS, test_clips=TEST_CLIPS, workers=WORKERS))
train, test = load_videos(DATA, "train"), load_videos(DATA, "test")
print(len(train), "videos with labels,", len(test), "to test on, in", len(train.classes), "classes")

# %% [markdown]
# ## Embeddings
#
# `embed` takes a path or many, and gives one vector per video: the mean of all tokens of the encoder.

# %%
import numpy as np

from videomae import embed


def features_of(videos, model):
    """The embeddings of videos, as one array (videos, features)."""
    return np.stack([e.features for e in embed([v.path for v in videos.items], model=model)])


train_features, test_features = features_of(train, PRETRAINED), features_of(test, PRETRAINED)
print(train_features.shape, test_features.shape)

# %% [markdown]
# ## Nearest neighbours
#
# Which training videos are most like a test video? Likeness is the cosine between two vectors. All vectors have much
# in common, so the mean is taken off first.

# %%
from IPython.display import Image as Picture

from videomae.report.pictures import captioned, frame_row, padded, save_picture
from videomae.video.reader import read_frames


def neighbours(queries, collection, count):
    """The rows of the `count` nearest in the collection, nearest first: (queries, count)."""
    mean = collection.mean(axis=0)
    a, b = queries - mean, collection - mean
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    return np.argsort(-a @ b.T, axis=1)[:, :count]


def row_of(query, nearest):
    """A test video and the training videos next to it, four frames each."""
    videos = [(f"{query.label}  (test)", query), *((video.label, video) for video in nearest)]
    parts = [captioned(frame_row(read_frames(v.path, range(32))), name) for name, v in videos]
    return np.concatenate([padded(part, right=12, below=6) for part in parts], axis=1)


def show_neighbours(name, nearest, labels=("sit_down", "open_door", "climb_up", "push")):
    """Show a test video of each of some classes, and its two nearest neighbours."""
    chosen = [next(k for k, v in enumerate(test.items) if v.label == label) for label in labels]
    rows = [row_of(test.items[k], [train.items[n] for n in nearest[k, :2]]) for k in chosen]
    return Picture(filename=save_picture(WORK / f"{name}.jpg", np.concatenate(rows)))


nearest = neighbours(test_features, train_features, 5)
show_neighbours("pretrained", nearest)

# %% [markdown]
# The same with the fine-tuned model, whose features were trained to tell the actions apart:

# %%
tuned_train, tuned_test = features_of(train, FINETUNED), features_of(test, FINETUNED)
tuned_nearest = neighbours(tuned_test, tuned_train, 5)
show_neighbours("finetuned", tuned_nearest)

# %% [markdown]
# How many of the five nearest neighbours show the same action? And how many show the same action or its opposite, the
# one played backwards?

# %%
from videomae.rendering.actions import ACTIONS

labels, test_labels = np.array(train.class_numbers()), np.array(test.class_numbers())
number = {name: k for k, name in enumerate(train.classes)}
pair_of = np.zeros(len(number), dtype=int)
for pair, action in enumerate(ACTIONS):
    pair_of[[number[action.forwards], number[action.backwards]]] = pair

for name, rows in (("pre-trained", nearest), ("fine-tuned", tuned_nearest)):
    same = (labels[rows] == test_labels[:, None]).mean()
    same_pair = (pair_of[labels[rows]] == pair_of[test_labels][:, None]).mean()
    print(f"{name}: the same action {same:.0%}, the same pair {same_pair:.0%}")
print(f"by chance: {1 / len(number):.0%}, {2 / len(number):.0%}")

# %% [markdown]
# A pre-trained encoder has never been told what matters. Its nearest neighbours share what fills the picture: the
# place, the light, the person. Labels say what matters. How far do a few of them go?
#
# ## A probe with few labels
#
# A linear classifier on the embeddings of the pre-trained encoder, with more and more labels per class. Features of
# single pixels (each video made small, in 8 frames of 8 x 8 pixels) are the baseline.

# %%
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from videomae.report.plots import plot_curve


def pixels_of(videos):
    """Each video as 8 frames of 8 x 8 pixels in one row: (videos, 1536)."""
    rows = []
    for video in videos.items:
        frames = read_frames(video.path, range(2, 32, 4))
        small = [np.asarray(Image.fromarray(frame).reduce(8)) for frame in frames]
        rows.append(np.concatenate(small, axis=None) / 255)
    return np.stack(rows)


def top1(count, features, test_features):
    """Accuracy in percent on the test videos, after learning from `count` videos per class."""
    chosen = np.concatenate([np.flatnonzero(labels == k)[:count] for k in range(len(number))])
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))
    linear.fit(features[chosen], labels[chosen])
    return 100 * linear.score(test_features, test_labels)


sets = {
    "pre-trained": (train_features, test_features),
    "pixels": (pixels_of(train), pixels_of(test)),
}
curves = {name: [top1(n, *pair) for n in LABELS_PER_CLASS] for name, pair in sets.items()}
plot_curve(
    {name: (LABELS_PER_CLASS, values) for name, values in curves.items()},
    WORK / "labels.png",
    xlabel="labels per class",
    ylabel="top-1, %",
    log_x=True,
    ticks=LABELS_PER_CLASS,
    levels={"guessing": 100 / len(number)},
)
for name, values in curves.items():
    print(f"{name:12}", ", ".join(f"{v:.1f} %" for v in values))
Picture(filename=WORK / "labels.png", width=640)

# %% [markdown]
# `linear-probe` does this for you, and chooses the strength of the penalty on a fifth of the labelled videos:
#
# ```bash
# videomae linear-probe --data actions --model actions-tiny-pretrain --output embeddings-work/probe
# ```

# %%
from videomae.evaluation.probe import linear_probe
from videomae.settings import LinearProbeSettings

result = linear_probe(LinearProbeSettings(DATA, model=PRETRAINED, output=WORK / "probe"))
for name, value in result.rows():
    print(f"{name:20} {value}")

# %% [markdown]
# ## What next?
#
# A classifier of the same kind, saved as a model, is `videomae finetune --train-only head`: see
# [fine-tuning on your classes](finetune.ipynb). For large collections, an index on disk answers searches and finds
# copies:
#
# ```bash
# videomae index actions/train
# videomae search index actions/test/push/00009.mp4
# videomae duplicates actions/train
# ```
