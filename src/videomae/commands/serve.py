"""`videomae serve`: a model behind a page and an HTTP service, in one process."""

import contextlib
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from videomae.errors import ConfigError, complain, needing
from videomae.serving.settings import ServeSettings

with needing("serve", extra="serve"):
    import uvicorn


def serve(settings: ServeSettings) -> int:
    """Serve until SIGTERM or Ctrl-C; then answer what was accepted, and return 0."""
    with needing("serve", extra="serve"):
        from videomae.serving.app import make_app
        from videomae.serving.service import Service
    # While models are loaded nothing is to be cleaned up, and an exception raised in the midst of
    # an import would be taken for a package that is not there.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with _listen(settings.host, settings.port) as listener:
        complain(f"loading {settings.model}")
        service = Service(settings)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        config = uvicorn.Config(
            make_app(service),
            root_path=settings.root_path,
            log_level="warning",
            # What was accepted is answered, or refused when its time is over.
            timeout_graceful_shutdown=math.ceil(settings.max_request_seconds) + 1,
            h11_max_incomplete_event_size=2**16,
            server_header=False,
        )
        host, port = listener.getsockname()[:2]
        where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        proxy = f"a proxy shows it under {settings.root_path}, " if settings.root_path else ""
        page = "" if settings.tokens or not settings.page else f"page {where}/, "
        complain(
            f"{service.encoder.engine.describe()}; {page}HTTP {where}/v1/, {proxy}stop with Ctrl-C"
        )
        _Server(config, service.stop).run(sockets=[listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, before any model is loaded in vain."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise ConfigError(
            f"port={port} of host={host} cannot be listened at ({error.strerror}); choose another "
            "port, or 0 for a free one"
        ) from error


class _Server(uvicorn.Server):
    """A server whose end by a signal is a good one: uvicorn would raise the signal once more."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {each: signal.signal(each, self._stop) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._on_stop()
        self.handle_exit(number, frame)
