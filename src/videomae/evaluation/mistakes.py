"""Videos that a classifier took for something else, with a picture of what it saw of them."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videomae.data.manifest import Videos
from videomae.errors import ConfigError, VideoError
from videomae.evaluation.sharding import views_of
from videomae.hub import write_json
from videomae.processing.views import ViewMaker, shown
from videomae.report.pictures import frame_row, save_picture
from videomae.report.reconstruction import to_frames

_MOST = 12


def write_mistakes(
    output: Path, videos: Videos, scores: Tensor, labels: Tensor, maker: ViewMaker
) -> None:
    """Write mistakes.json and mistakes/: the wrong answers that the model was surest of.

    scores: (N, K), NaN where a video could not be read. labels: class numbers (N). Up to 12 videos,
    each with its path, class, answer, the answer's score, and a picture of frames of its middle
    view. What an earlier evaluation left is removed.
    """
    folder = output / "mistakes"
    shutil.rmtree(folder, ignore_errors=True)
    sure, answers = scores.nan_to_num(-1).max(1)
    wrong = torch.where((answers != labels) & (sure >= 0))[0]
    rows = wrong[sure[wrong].argsort(descending=True, stable=True)][:_MOST]
    found: list[dict[str, Any]] = []
    for row in rows.tolist():
        video = videos.items[row]
        mistake = {
            "path": str(video),
            "label": video.label,
            "predicted": videos.classes[int(answers[row])],
            "score": round(float(sure[row]), 4),
        }
        with suppress(VideoError, ConfigError):  # gone meanwhile; channels that nobody can see
            view = views_of(video, maker)[maker.num_views // 2]
            frames = to_frames(shown(view, maker.processor))
            path = folder / f"{len(found) + 1:02d}.jpg"
            mistake["picture"] = str(save_picture(path, frame_row(frames)).relative_to(output))
        found.append(mistake)
    write_json(output / "mistakes.json", {"num_wrong": len(wrong), "shown": found})
