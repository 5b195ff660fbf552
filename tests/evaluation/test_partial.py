import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae.config import VideoMAEConfig
from videomae.evaluation import sharding
from videomae.evaluation.evaluate import evaluate
from videomae.evaluation.partial import Partial
from videomae.model.modeling import VideoMAEForVideoClassification
from videomae.settings import EvaluateSettings

KEY = "0" * 64


def test_answers_are_read_back_by_row_and_a_cut_off_one_is_left_out(tmp_path: Path) -> None:
    partial = Partial(tmp_path, "train", KEY)
    partial.begin(0, {4: torch.tensor([[1.0, 2.0]])})
    partial.add(0, [(6, torch.tensor([[3.0, 0.1]]))])
    partial.begin(1, {5: torch.tensor([[5.0, 6.0]])})
    path = tmp_path / ".train.1.part"
    path.write_bytes(path.read_bytes() + b"cut off")
    found = partial.read((1, 2))
    assert {row: answer.tolist() for row, answer in found.items()} == {
        4: [[1, 2]],
        6: [[3, torch.tensor(0.1).item()]],
        5: [[5, 6]],
    }
    assert Partial(tmp_path, "train", "1" * 64).read((1, 2)) == {}
    partial.remove()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def settings(videos_dir: Path, tmp_path: Path) -> EvaluateSettings:
    config = VideoMAEConfig.preset(
        "tiny", image_size=16, num_frames=4, num_hidden_layers=1, num_labels=2,
        id2label={0: "throw", 1: "walk"},
    )  # fmt: skip
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "model")
    return EvaluateSettings(
        model=str(tmp_path / "model"), data=videos_dir, output=tmp_path / "out", batch_size=4,
        num_workers=1, device="cpu", dtype="float32", num_clips=2,
    )  # fmt: skip


def test_an_evaluation_that_was_broken_off_goes_on_to_the_same_bytes(
    settings: EvaluateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.output is not None
    evaluate(settings)
    names = ("results.json", "predictions.parquet")
    whole = [(settings.output / name).read_bytes() for name in names]
    shutil.rmtree(settings.output)
    opened: list[Any] = []

    def views_of(*arguments: Any) -> Any:
        opened.append(arguments)
        if len(opened) == 8:
            raise KeyboardInterrupt
        return real(*arguments)

    real = sharding.views_of
    with monkeypatch.context() as patch:
        patch.setattr(sharding, "views_of", views_of)
        with pytest.raises(KeyboardInterrupt, match=r"kept in .*out; the same command goes on"):
            evaluate(settings)
    assert [path.name for path in settings.output.iterdir()] == [".predictions.0.part"]
    monkeypatch.setattr(sharding, "views_of", lambda *each: opened.append(each) or real(*each))
    evaluate(settings)
    assert len(opened) < 18  # of the first ten, some were known
    assert [(settings.output / name).read_bytes() for name in names] == whole
    assert not list(settings.output.glob(".*"))


def test_nothing_is_kept_where_no_output_is_named(
    settings: EvaluateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(sharding, "views_of", interrupted)
    object.__setattr__(settings, "output", None)
    with pytest.raises(KeyboardInterrupt, match="nothing is kept without --output"):
        evaluate(settings)
