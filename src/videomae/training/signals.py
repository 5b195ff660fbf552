"""Ctrl-C and SIGTERM: finish the step in progress, or, asked again, stop now."""

import _thread
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

from videomae.training.log import RunLog

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Launchers such as `uv run` hand on a Ctrl-C that the terminal has sent already: one press.
_ONE_PRESS_SECONDS = 0.5
# After a second press the run has this long to clean up before the process ends.
_PATIENCE_SECONDS = 3.0


@contextlib.contextmanager
def stop_signals(log: RunLog) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that the step in progress is finished first.

    A second SIGINT raises KeyboardInterrupt. Python handles signals between its own instructions
    alone, and a backward pass may be a minute of one; so a thread reads them where the system
    writes them. It answers at once, and ends the process if the second one is not handled, but only
    where a terminal shows that somebody pressed a key: a notebook must not lose its kernel.
    """
    stop, now, ended = threading.Event(), threading.Event(), False
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

    def answer() -> None:
        first = 0.0
        while number := reading.recv(1):
            if number[0] not in _SIGNALS or now.is_set():
                continue
            if not first:
                first = time.monotonic()
                stop.set()
                again = "; press Ctrl-C again to stop now" if log.console.is_terminal else ""
                log.say(f"stopping after this step{again}")
            elif number[0] == signal.SIGINT and time.monotonic() - first > _ONE_PRESS_SECONDS:
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

    over = threading.Event()
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=answer, name="videomae-signals", daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        over.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        writing.close()  # ends the thread
        thread.join()
        reading.close()
