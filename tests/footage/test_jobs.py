import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import videomae
from tiny_models import SIZES
from videomae.config import VideoMAEConfig
from videomae.data.inputs import list_inputs
from videomae.data.manifest import Video
from videomae.errors import ConfigError
from videomae.footage import batch, jobs
from videomae.footage.batch import key_of, read_batch, run_job
from videomae.footage.jobs import Found, Job
from videomae.footage.windows import sliding_windows
from videomae.model.modeling import VideoMAEForVideoClassification

TINY: dict[str, Any] = {**SIZES, "num_hidden_layers": 1, "frame_stride": 1}
SAME: dict[str, Any] = {"dtype": "float32", "engine": "torch", "device": "cpu"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = VideoMAEConfig(**TINY, id2label={0: "run", 1: "jump", 2: "fall"})
        classifier = VideoMAEForVideoClassification(config)
        torch.nn.init.normal_(classifier.classifier.weight)
        classifier.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def videos(videos_dir: Path, tmp_path: Path) -> list[Video]:
    """The ten videos, and one that is broken."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    return [*list_inputs(str(videos_dir)), Video(str(bad))]


def paths(folder: Path) -> list[str]:
    return sorted(read_batch(folder).table["path"].to_pylist())


def test_labels_are_those_of_classify(model: str, videos: list[Video], tmp_path: Path) -> None:
    job = Job("classify", model, top_k=2, num_clips=2, batch_size=3, **SAME)
    summary = run_job([*videos, videos[0]], tmp_path / "out", job, part_size=4)
    assert (summary.num_done, summary.num_bad, summary.num_rows) == (11, 1, 10)
    rows = read_batch(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("part-*"))) == 3
    assert rows.table["path"].to_pylist() == [video.path for video in videos[:10]]
    expected = videomae.classify(
        [video.path for video in videos[:10]], model=model, top_k=2, num_clips=2, **SAME
    )
    for row, answer in zip(rows.table.to_pylist(), expected, strict=True):
        assert (row["start_seconds"], row["end_seconds"]) == (0, 1)
        assert tuple(row["labels"]) == answer.labels
        np.testing.assert_allclose(row["scores"], answer.scores, atol=1e-6)
    (bad,) = rows.bad.to_pylist()
    assert bad["path"] == videos[10].path
    assert "cannot be opened as a video" in bad["reason"]
    assert rows.facts["settings"] == {
        "top_k": 2, "num_clips": 2, "num_crops": 1, "window_seconds": None, "hop_seconds": None,
        "on_damage": "refuse", "frame_stride": 1, "fps": None, "dtype": "float32",
    }  # fmt: skip
    assert rows.facts["version"] == videomae.__version__


@pytest.mark.parametrize("features", ["pooled", "per_time", "tokens"])
def test_features_are_those_of_embed(
    features: Any, model: str, videos: list[Video], tmp_path: Path
) -> None:
    run_job(videos[:3], tmp_path, Job("embed", model, features=features, **SAME))
    answers = [video.path for video in videos[:3]]
    expected = videomae.embed(answers, model=model, features=features, **SAME)
    found = read_batch(tmp_path).features()
    np.testing.assert_allclose(found, np.stack([e.features for e in expected]), atol=1e-6)


def test_windows_are_rows_of_their_own(model: str, videos: list[Video], tmp_path: Path) -> None:
    job = Job("embed", model, window_seconds=0.5, hop_seconds=0.25, batch_size=4, **SAME)
    summary = run_job(videos, tmp_path, job)
    assert (summary.num_rows, summary.num_bad) == (30, 1)
    rows = read_batch(tmp_path)
    assert rows.table["path"].to_pylist()[:4] == [videos[0].path] * 3 + [videos[1].path]
    assert rows.table["start_seconds"].to_pylist()[:4] == [0, 0.25, 0.5, 0]
    assert rows.table["end_seconds"].to_pylist()[:4] == [0.5, 0.75, 1, 0.5]
    loaded = job.load()
    one = sliding_windows(videos[0].path, loaded.maker, window_seconds=0.5, hop_seconds=0.25)
    expected = torch.cat([loaded.compute(views) for _, views in one])
    np.testing.assert_allclose(rows.features()[:3], expected, atol=1e-6)
    part = Video(videos[0].path, num_frames=5)
    with pytest.raises(ConfigError, match=r"num_frames=5\) is a part of a video, and windows"):
        run_job([part], tmp_path / "other", job)


def test_a_folder_of_frames_is_one_window(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number}.png")
    job = Job("embed", model, window_seconds=0.5, hop_seconds=0.25, **SAME)
    run_job([Video(str(folder))], tmp_path / "out", job)
    (row,) = read_batch(tmp_path / "out").table.to_pylist()
    assert (row["path"], row["start_seconds"], row["end_seconds"]) == (str(folder), None, None)
    (expected,) = videomae.embed([folder], model=model, **SAME)
    np.testing.assert_allclose(row["features"], expected.features, atol=1e-6)


def test_parts_of_a_video_have_their_seconds(
    model: str, videos: list[Video], tmp_path: Path
) -> None:
    parts = [replace(videos[0], end_seconds=0.5), replace(videos[0], start_seconds=0.5)]
    run_job(parts, tmp_path, Job("embed", model, **SAME))
    rows = read_batch(tmp_path)
    assert rows.table["path"].to_pylist() == [videos[0].path] * 2
    assert rows.table["start_seconds"].to_pylist() == [0, 0.5]
    assert rows.table["end_seconds"].to_pylist() == [0.5, 1]
    assert not np.allclose(*rows.features())


def test_an_address_of_no_known_kind_ends_nothing(
    model: str, videos: list[Video], tmp_path: Path
) -> None:
    rows = [Video("nope://x.mp4"), videos[0]]
    assert run_job(rows, tmp_path, Job("embed", model, **SAME)).num_bad == 1
    (bad,) = read_batch(tmp_path).bad.to_pylist()
    assert "nope://x.mp4: cannot be read (ValueError: Protocol not known" in bad["reason"]


def test_shards_share_the_videos_and_a_folder(
    model: str, videos: list[Video], tmp_path: Path
) -> None:
    job = Job("embed", model, **SAME)
    done = []
    for number in (1, 2, 3):
        # Which videos are whose does not depend on the order of the list, or on what else is in it.
        listed = [*videos, Video("gone.mp4")][:: -1 if number == 2 else 1]
        done.append(run_job(listed, tmp_path, job, shard=(number, 3)).num_done)
    places = [int(key_of(video), 16) % 3 for video in listed]
    assert done == [places.count(share) for share in range(3)]
    assert paths(tmp_path) == [video.path for video in videos[:10]]
    with pytest.raises(ConfigError, match="shard=4/3 is no share; expected 1/3 to 3/3"):
        run_job(videos, tmp_path, job, shard=(4, 3))


def test_interrupted_work_goes_on_without_repeats(
    model: str, videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, out = Job("embed", model, batch_size=1, **SAME), tmp_path / "out"
    compute_here, read = batch.compute_here, []

    def interrupted(*arguments: Any) -> Iterator[Found]:
        for number, each in enumerate(compute_here(*arguments)):
            if number == 5:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(batch, "compute_here", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_job(videos, out, job, part_size=2)
    assert paths(out) == [video.path for video in videos[:5]]
    with pytest.raises(ConfigError, match="go on with --resume"):
        run_job(videos, out, job)

    def counted(loaded: Any, todo: Any) -> Iterator[Found]:
        read.extend(video for _, video in todo)
        return compute_here(loaded, todo)

    monkeypatch.setattr(batch, "compute_here", counted)
    summary = run_job(videos, out, job, resume=True)
    assert read == videos[5:]
    assert (summary.num_before, summary.num_done) == (5, 6)
    assert str(summary).endswith("5 were done before")
    assert paths(out) == [video.path for video in videos[:10]]
    assert run_job(videos, out, job, resume=True).num_done == 0
    monkeypatch.undo()
    fresh = tmp_path / "fresh"
    run_job(videos, fresh, job)
    assert read_batch(out).table.equals(read_batch(fresh).table)


def test_a_part_that_a_killed_process_left_is_removed(
    model: str, videos: list[Video], tmp_path: Path
) -> None:
    mine, others = (tmp_path / f".part-{name}-00000-ab.cd.parquet" for name in ("1of1", "1of2"))
    mine.touch()
    others.touch()
    run_job(videos[:1], tmp_path, Job("embed", model, **SAME))
    assert (mine.exists(), others.exists()) == (False, True)
    assert len(read_batch(tmp_path).table) == 1


def test_other_weights_under_the_same_name_are_refused(
    model: str, videos: list[Video], tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "model")
    job = Job("classify", str(tmp_path / "model"), **SAME)
    run_job(videos[:1], tmp_path / "out", job)
    changed = VideoMAEForVideoClassification.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        changed.classifier.bias += 1
    changed.save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"and not with model=.*\(other weights\); name another"):
        run_job(videos, tmp_path / "out", job, resume=True)
    with pytest.raises(ConfigError, match="was made with top_k=5, and not with top_k=1"):
        run_job(videos, tmp_path / "out", replace(job, top_k=1), resume=True)


def test_what_got_no_answer_is_counted(
    model: str, videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_here = batch.compute_here
    monkeypatch.setattr(batch, "compute_here", lambda loaded, todo: compute_here(loaded, todo[:8]))
    with pytest.raises(ConfigError, match="3 videos got no answer; go on with --resume"):
        run_job(videos, tmp_path / "out", Job("embed", model, **SAME))
    assert len(read_batch(tmp_path / "out").table) == 8


def test_an_answer_that_is_no_number_is_a_bad_video(
    model: str, videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_is_nothing(pixels: torch.Tensor) -> torch.Tensor:
        answers = torch.zeros(len(pixels), 16)
        answers[1] = torch.nan
        return answers

    monkeypatch.setattr(jobs, "describing", lambda *_: second_is_nothing)
    run_job(videos[:3], tmp_path / "out", Job("embed", model, **{**SAME, "batch_size": 3}))
    rows = read_batch(tmp_path / "out")
    (bad,) = rows.bad.to_pylist()
    assert bad["reason"] == "the model's answer is no number; try dtype=float32"
    assert len(rows.table) == 2


def test_videos_have_keys_of_their_parts() -> None:
    keys = {key_of(Video("a.mp4", label)) for label in ("x", "y")}
    assert len(keys) == 1
    assert key_of(Video("a.mp4", start_seconds=1.0)) not in keys
