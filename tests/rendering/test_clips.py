import os
import signal
from multiprocessing import active_children
from pathlib import Path

import pytest

from videomae.errors import ConfigError
from videomae.rendering import actions, clips
from videomae.settings import ActionsSettings


def settings(output: Path, workers: int) -> ActionsSettings:
    return ActionsSettings(
        output=output, clips=40, test_clips=0, size=16, num_frames=4, workers=workers
    )


def test_ctrl_c_ends_the_processes_and_says_what_is_there(tmp_path: Path) -> None:
    def press(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    asked = settings(tmp_path / "set", 2)
    with pytest.raises(KeyboardInterrupt, match=r"of 40 videos are in .*set; the same command"):
        actions.render_dataset(asked, on_progress=press)
    assert not active_children()
    assert not [path for path in asked.output.rglob(".*") if path.is_file()]
    assert len(actions.render_dataset(settings(asked.output, 1))) == 40


def test_a_killed_process_is_a_sentence_and_the_work_goes_on(tmp_path: Path) -> None:
    def kill(*_: int) -> None:
        for child in active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)

    asked = settings(tmp_path / "set", 2)
    with pytest.raises(ConfigError, match=r"was killed, .*; the same command goes on from there"):
        actions.render_dataset(asked, on_progress=kill)
    assert len(actions.render_dataset(settings(asked.output, 1))) == 40


def test_a_set_that_was_killed_before_its_first_file_is_carried_on(tmp_path: Path) -> None:
    (tmp_path / clips.LOCK_NAME).touch()
    assert len(actions.render_dataset(settings(tmp_path, 1))) == 40
