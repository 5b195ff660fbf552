"""Signals, heard by a thread the moment that they come, whatever the main thread computes.

Python handles a signal between its own instructions alone, and one call of a library may last for
minutes. A thread reads the number of each signal where the system writes it.
"""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def heard(handlers: Mapping[signal.Signals, Any], hear: Callable[[int], None]) -> Iterator[None]:
    """Set handlers, and call `hear` in a thread with the number of each signal; then as before.

    Signals that come while `hear` is at work wait for it. For the main thread alone.
    """

    def listen() -> None:
        while number := reading.recv(1):
            if number[0] in handlers:
                hear(number[0])

    reading, writing = socket.socketpair()
    writing.setblocking(False)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, name="videomae-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # closed, where this ends after what is around it
            signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        writing.close()  # ends the thread
        thread.join()
        reading.close()
