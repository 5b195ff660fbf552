"""Ctrl-C, once and twice."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from videomae.training import signals
from videomae.training.signals import stop_signals


@pytest.fixture
def log() -> Any:
    said: list[str] = []
    return SimpleNamespace(
        say=said.append,
        said=said,
        console=SimpleNamespace(is_terminal=True),
        progress=SimpleNamespace(stop=lambda: said.append("the bar stops")),
        last_checkpoint=lambda: "the last checkpoint is x",
    )


def test_the_first_press_lets_the_step_end(log: Any) -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_signals(log) as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)
        os.kill(os.getpid(), signal.SIGTERM)  # of a launcher: no second press
        os.kill(os.getpid(), signal.SIGINT)  # handed on by a launcher in the same instant
    assert log.said == ["stopping after this step; press Ctrl-C again to stop now"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_press_stops_at_once(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_ONE_PRESS_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt), stop_signals(log) as stop:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(20)
    assert log.said[1:] == ["stopping now; the last checkpoint is x"]


def test_presses_that_meet_in_any_order_end_the_run(
    log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that waits for a lock of the code it interrupts, and a press before a wait."""
    monkeypatch.setattr(signals, "_ONE_PRESS_SECONDS", 0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(300):
            with pytest.raises(KeyboardInterrupt), stop_signals(log) as stop:  # noqa: PT012
                os.kill(os.getpid(), signal.SIGINT)
                assert stop.wait(5)
                os.kill(os.getpid(), signal.SIGINT)
                threading.Event().wait(20)
    finally:
        sys.setswitchinterval(interval)


def test_a_log_that_nobody_watches_is_not_asked_to_press_keys(log: Any) -> None:
    log.console.is_terminal = False
    with stop_signals(log) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert log.said == ["stopping after this step"]


def test_a_thread_is_left_alone(log: Any) -> None:
    found: list[bool] = []

    def run() -> None:
        with stop_signals(log) as stop:
            found.append(stop.is_set())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


BUSY = """
import hashlib, os, signal, sys, threading
from types import SimpleNamespace
from videomae.training import signals
signals._ONE_PRESS_SECONDS = 0
signals._PATIENCE_SECONDS = 0.1
pressed = threading.Event()
def say(text):
    print(text, flush=True)
    if not pressed.is_set():  # from the thread, while the other one computes
        pressed.set()
        os.kill(os.getpid(), signal.SIGINT)
log = SimpleNamespace(say=say, console=SimpleNamespace(is_terminal=True),
                      progress=SimpleNamespace(stop=lambda: print("shown", flush=True)),
                      last_checkpoint=lambda: "kept")
with signals.stop_signals(log):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 400_000_000)  # minutes, in which Python hears nothing
"""


@pytest.mark.slow
def test_a_step_that_hears_nothing_is_answered_and_ended_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 130, done.stderr
    assert done.stdout.splitlines() == [
        "stopping after this step; press Ctrl-C again to stop now",
        "stopping now; kept",
        "shown",
    ]
