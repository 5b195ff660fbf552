"""Ctrl-C and SIGTERM: finish the step in progress, or, asked again, stop now."""

import _thread
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

from videomae.signals import heard
from videomae.training.log import RunLog

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Launchers such as `uv run` hand on a Ctrl-C that the terminal has sent already: one press.
_ONE_PRESS_SECONDS = 0.5
# After a second press the run has this long to clean up before the process ends.
_PATIENCE_SECONDS = 3.0


@contextlib.contextmanager
def stop_signals(log: RunLog) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that the step in progress is finished first.

    A second SIGINT raises KeyboardInterrupt. A backward pass may be a minute of one instruction; so
    a thread answers at once, and ends the process if the second one is not handled, but only where
    a terminal shows that somebody pressed a key: a notebook must not lose its kernel.
    """
    stop, now, over = (threading.Event() for _ in range(3))
    ended, first = False, 0.0
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    main = threading.get_ident()

    def interrupt() -> None:
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main, signal.SIGINT)  # out of what it waits for, too
        else:  # Windows
            _thread.interrupt_main()

    def handle(*_: object) -> None:
        nonlocal ended  # no lock in here: a signal may interrupt the handler of another one
        if now.is_set() and not ended:
            ended = True  # once: what it interrupts must not be interrupted in its turn
            raise KeyboardInterrupt

    def answer(number: int) -> None:
        nonlocal first
        if now.is_set():
            return
        if not first:
            first = time.monotonic()
            stop.set()
            again = "; press Ctrl-C again to stop now" if log.console.is_terminal else ""
            log.say(f"stopping after this step{again}")
        elif number == signal.SIGINT and time.monotonic() - first > _ONE_PRESS_SECONDS:
            log.say(f"stopping now; {log.last_checkpoint()}")
            now.set()
            until = time.monotonic() + _PATIENCE_SECONDS
            while not ended and time.monotonic() < until:
                interrupt()  # again: one that comes just before a wait begins does not end it
                over.wait(0.1)
            left = max(0.0, until - time.monotonic())
            if not over.wait(left) and log.console.is_terminal:
                log.progress.stop()  # shows the cursor again
                os._exit(130)

    with heard(dict.fromkeys(_SIGNALS, handle), answer):
        try:
            yield stop
        finally:
            over.set()
