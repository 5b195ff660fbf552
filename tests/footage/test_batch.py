import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videomae.data.manifest import Video
from videomae.errors import ConfigError
from videomae.footage import batch
from videomae.footage.batch import PartWriter, Row, read_batch
from videomae.inference.predict import Classification, Embedding

EMBED: dict[str, Any] = {
    "task": "embed",
    "model": "tiny",
    "weights_sha256": "0f",
    "settings": {"features": "per_time", "num_clips": 1},
    "feature_shape": [2, 3],
    "version": "0.1.0",
}
CLASSIFY = {**EMBED, "task": "classify", "settings": {"top_k": 2}, "feature_shape": None}


def vector(path: str, value: float, start: float | None = None, end: float | None = None) -> Row:
    return Row(path, start, end, Embedding(None, np.full((2, 3), value, np.float32)))


def labels(path: str, *pairs: tuple[str, float]) -> Row:
    names, scores = zip(*pairs, strict=True)
    return Row(path, 0.0, 2.5, Classification(None, names, scores, np.zeros((1, 2), np.float32)))


def test_features_come_back_in_their_shape_with_the_facts(tmp_path: Path) -> None:
    with PartWriter(tmp_path / "new" / "out", EMBED, part_size=2) as parts:
        for number, path in enumerate(["a.mp4", "b.mp4", "c.mp4"]):
            parts.add(Video(path), [vector(path, number, 0.5, 1.0), vector(path, number + 0.5)])
    assert len(list((tmp_path / "new" / "out").iterdir())) == 2
    rows = read_batch(tmp_path / "new" / "out")
    assert rows.facts == EMBED
    assert rows.table.column_names == ["path", "start_seconds", "end_seconds", "features"]
    assert rows.table.schema.field("features").type == pa.list_(pa.float32(), 6)
    assert rows.table["path"].to_pylist() == ["a.mp4", "a.mp4", "b.mp4", "b.mp4", "c.mp4", "c.mp4"]
    assert rows.table["end_seconds"].to_pylist() == [1.0, None] * 3
    assert rows.features().shape == (6, 2, 3)
    assert rows.features()[:, 1, 2].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert rows.bad.num_rows == 0


def test_labels_and_bad_videos_come_back_from_all_shards(tmp_path: Path) -> None:
    for shard in ((1, 2), (2, 2)):  # neither needs to know that the other one is there
        with PartWriter(tmp_path, CLASSIFY, shard=shard) as parts:
            parts.add(
                Video(f"{shard}.mp4"), [labels(f"{shard}.mp4", ("throw", 0.75), ("walk", 0.25))]
            )
            parts.add(Video(f"caf\udce9 {shard}"), "no \udce9 video")
    rows = read_batch(tmp_path)
    assert rows.table.to_pylist()[1] == {
        "path": "(2, 2).mp4",
        "start_seconds": 0.0,
        "end_seconds": 2.5,
        "labels": ["throw", "walk"],
        "scores": [0.75, 0.25],
    }
    assert rows.table.schema.field("scores").type == pa.list_(pa.float32())
    reason = {"path": r"caf\xe9 (1, 2)", "reason": r"no \xe9 video"}
    assert rows.bad.to_pylist()[0] == reason
    with pytest.raises(ConfigError, match="rows are labels, not features; `videomae embed`"):
        rows.features()


def test_a_part_says_to_any_program_what_it_was_made_by(tmp_path: Path) -> None:
    with PartWriter(tmp_path, EMBED) as parts:
        parts.add(Video("a.mp4"), [vector("a.mp4", 1)])
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"part-1of1-00000-[0-9a-f]{8}\.parquet", path.name)
    assert json.loads(pq.read_metadata(path).metadata[b"videomae"]) == EMBED


def test_work_goes_on_without_repeats_and_keeps_what_was_there(tmp_path: Path) -> None:
    with PartWriter(tmp_path, EMBED) as parts:
        parts.add(Video("a.mp4"), [vector("a.mp4", 1)])
        parts.add(Video("b.mp4"), "is broken")
    with pytest.raises(ConfigError, match=r"bad-1of1-00000-\w+.parquet; go on with --resume"):
        PartWriter(tmp_path, EMBED)
    with PartWriter(tmp_path, {**EMBED, "version": "0.2.0"}, resume=True) as parts:
        assert parts.done == {batch.key_of(Video("a.mp4")), batch.key_of(Video("b.mp4"))}
        parts.add(Video("c.mp4"), [vector("c.mp4", 2)])
    assert read_batch(tmp_path).table["path"].to_pylist() == ["a.mp4", "c.mp4"]
    # One of more shards, or of all of them, also knows what another one has done.
    assert len(PartWriter(tmp_path, EMBED, shard=(2, 3)).done) == 3


def test_one_process_at_a_time_works_on_a_shard(tmp_path: Path) -> None:
    for _ in range(2):  # what the first one has left keeps nobody out
        with (
            PartWriter(tmp_path, EMBED, resume=True),
            PartWriter(tmp_path, EMBED, shard=(1, 2)),
            pytest.raises(ConfigError, match=r"is in use by process \d+ on"),
        ):
            PartWriter(tmp_path, EMBED, resume=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "classify"}, "was made with task=embed, and not with task=classify"),
        ({"settings": {"features": "pooled", "num_clips": 1}}, "not with features=pooled; name"),
        (
            {"settings": {**EMBED["settings"], "fps": None}},
            "was made with fps=not set, and not with fps=None",
        ),
        (
            {"model": "other", "weights_sha256": "1f"},
            r"made with model=tiny, and not with model=other \(other weights\); name another",
        ),
    ],
)
def test_another_model_or_setting_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with PartWriter(tmp_path, EMBED) as parts:
        parts.add(Video("a.mp4"), [vector("a.mp4", 1)])
    for shard in ((1, 1), (1, 2)):
        with pytest.raises(ConfigError, match=message):
            PartWriter(tmp_path, {**EMBED, **change}, shard=shard, resume=True)


def test_a_part_is_written_when_it_is_large_or_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_PART_BYTES", 2 * 6 * 4)
    with PartWriter(tmp_path, EMBED) as parts:
        parts.add(Video("a.mp4"), [vector("a.mp4", 1)])
        assert not list(tmp_path.glob("*.parquet"))
        parts.add(Video("b.mp4"), [vector("b.mp4", 1)])
        assert len(list(tmp_path.glob("*.parquet"))) == 1
        monkeypatch.setattr(batch, "_PART_SECONDS", 0)
        parts.add(Video("c.mp4"), [vector("c.mp4", 1)])
        assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_folders_that_cannot_be_read_back_say_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no parts; expected a folder that `videomae cl"):
        read_batch(tmp_path)
    with PartWriter(tmp_path, EMBED) as parts:
        parts.add(Video("a.mp4"), [vector("a.mp4", 1)])
    (path,) = tmp_path.iterdir()
    twin = path.with_name("part-1of2-00000-00000000.parquet")
    twin.write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match=r"are about the same video; remove one of both"):
        read_batch(tmp_path)
    twin.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"1of2-.* is no part of a batch job, or damaged"):
        read_batch(tmp_path)
