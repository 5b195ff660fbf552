import dataclasses
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from videomae.compute.distributed import Machine
from videomae.data.manifest import Video, Videos
from videomae.errors import ConfigError
from videomae.recipe import load_recipe
from videomae.report.record import read_log
from videomae.settings import PretrainSettings
from videomae.training import log as report
from videomae.training.log import RunLog, open_output, own_output


@pytest.fixture
def settings(tmp_path: Path) -> PretrainSettings:
    return PretrainSettings(data=tmp_path / "data", output=tmp_path / "run", tracker="none")


@pytest.fixture
def machine() -> Machine:
    return Machine.start("cpu", "float32")


def test_a_resumed_log_tells_no_step_twice(settings: PretrainSettings, machine: Machine) -> None:
    settings.output.mkdir()
    rows = [{"step": step, "loss": 1 / step, "seconds": 10.0 * step} for step in (1, 2, 3)]
    evaluated = {"step": 2, "score": 50.0, "seconds": 21.0}  # which is done again
    text = "".join(json.dumps(row) + "\n" for row in (*rows[:2], evaluated, rows[2]))
    (settings.output / "log.jsonl").write_text(text + '{"step": 4, "lo')  # cut off by a crash
    assert read_log(settings.output) == [*rows[:2], evaluated, rows[2]]
    again = dataclasses.replace(settings, resume=True)
    with RunLog(again, machine, num_steps=9, title="x", first_step=2) as log:
        assert read_log(settings.output) == rows[:2]
        log.record(step=3, loss=0.5)
    last = read_log(settings.output)[-1]
    assert last["step"] == 3
    assert 20 <= last["seconds"] < 25  # the time before the break counts


def test_a_run_without_a_log_has_no_lines(settings: PretrainSettings, machine: Machine) -> None:
    settings.output.mkdir()
    with RunLog(dataclasses.replace(settings, resume=True), machine, num_steps=1, title="x"):
        assert read_log(settings.output) == []


def test_figures_that_are_no_numbers_become_null(
    settings: PretrainSettings, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.output.mkdir()
    with RunLog(settings, machine, num_steps=2, title="pretrain") as log:
        log.record(step=1, loss=float("nan"), lr=1.23456789e-7, num_bad_videos=0)
    (row,) = read_log(settings.output)
    assert (row["loss"], row["lr"]) == (None, 1.23457e-7)
    assert "pretrain: step 1  loss None" in capsys.readouterr().err  # no zeros, no lr


def test_unreadable_videos_are_listed_whole_and_told_in_part(
    settings: PretrainSettings, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.output.mkdir()
    videos = Videos(tuple(Video(f"{number}.mp4") for number in range(30)))
    bad = {number: f"{number}.mp4: is cut off" for number in range(25)}
    with RunLog(settings, machine, num_steps=1, title="x") as log:
        log.list_bad(videos, bad)
    listed = json.loads((settings.output / "bad_videos.json").read_text())
    assert listed["24.mp4"] == "24.mp4: is cut off"
    said = capsys.readouterr().err
    assert said.count("skipped") == 20
    assert "and 5 more: " in said


def test_a_run_begins_with_what_it_is_made_of(settings: PretrainSettings, machine: Machine) -> None:
    settings.data.mkdir()
    (settings.data / "report.json").write_text('{"usable": 3}')
    open_output(dataclasses.replace(settings, resume=True), machine, {"num_videos": 3})
    assert json.loads((settings.output / "run.json").read_text()) == {"num_videos": 3}
    # As a recipe, it begins anew.
    assert load_recipe(settings.output / "settings.toml", PretrainSettings) == settings
    environment = json.loads((settings.output / "environment.json").read_text())
    assert {"videomae", "git", "command", "torch", "processes"} <= set(environment)
    assert json.loads((settings.output / "data_report.json").read_text()) == {"usable": 3}


def test_tensorboard_gets_the_figures(settings: PretrainSettings, machine: Machine) -> None:
    with_board = dataclasses.replace(settings, tracker="auto")
    open_output(with_board, machine, {})
    with RunLog(with_board, machine, num_steps=2, title="x") as log:
        log.record(step=1, loss=0.5)
        log.record(step=2, loss=0.25)
    events = EventAccumulator(str(settings.output / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]


def test_a_tracker_that_is_not_installed_is_named(
    settings: PretrainSettings, machine: Machine
) -> None:
    asked = dataclasses.replace(settings, tracker="wandb")
    message = "tracker='wandb' is not installed: pip install wandb"
    with pytest.raises(ConfigError, match=message), own_output(asked, machine, "pretrain"):
        pass
    assert not settings.output.exists()


def test_long_numbers_are_written_out(
    settings: PretrainSettings, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.output.mkdir()
    with RunLog(settings, machine, num_steps=2, title="pretrain") as log:
        log.record(step=1, loss=1.23456, clips_per_second=12345.6, data_share=0.0)
    assert "loss 1.235  clips_per_second 12,346" in capsys.readouterr().err


def test_the_page_is_there_from_the_first_report_on_and_made_again_seldom(
    settings: PretrainSettings, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_output(settings, machine, {})
    page, now = settings.output / "index.html", [100.0]
    monkeypatch.setattr(report.time, "perf_counter", lambda: now[0])
    with RunLog(settings, machine, num_steps=9, title="x") as log:
        log.record(step=1, loss=0.5)
        log.draw_page()
        assert "At step 1" in page.read_text()
        page.unlink()
        now[0] += 29
        log.draw_page()
        assert not page.exists()
        now[0] += 2
        log.draw_page()
        assert page.exists()


def test_a_page_that_cannot_be_written_ends_no_run(
    settings: PretrainSettings, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.output.mkdir()
    monkeypatch.setattr(report, "write_page", None)
    with (
        RunLog(settings, machine, num_steps=9, title="x") as log,
        pytest.warns(UserWarning, match=r"index\.html could not be written"),
    ):
        log.draw_page()


def test_the_bar_moves_each_step_and_says_what_is_left(
    settings: PretrainSettings, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.output.mkdir()
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich believe in a terminal
    with RunLog(settings, machine, num_steps=100, title="x") as log:
        log.pace.begun -= 60
        log.advance(1)
        (task,) = log.progress.tasks
        assert (task.completed, task.fields["left"]) == (1, "1 h 39 min left")
        log.pace.warm -= 2
        log.advance(2)
        assert (task.completed, task.fields["left"]) == (2, "3 min 16 s left")
