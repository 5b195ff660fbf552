import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from videomae import VideoMAEConfig, VideoMAEForVideoClassification
from videomae.serving.app import make_app
from videomae.serving.service import Service
from videomae.serving.settings import ServeSettings


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[str]:
    """A service in a thread of its own; its address."""
    service = Service(ServeSettings(decoders=1, device="cpu", dtype="float32", **settings))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(service), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a service that takes 1 MB."""
    with running(max_upload_mb=1) as address:
        yield address


@pytest.fixture(scope="module")
def hasty_address() -> Iterator[str]:
    """The address of a service that takes two seconds, and frames of a thousand pixels."""
    with running(max_request_seconds=2, max_pixels=1000) as address:
        yield address


@pytest.fixture
def regression_address(small: dict[str, Any], tmp_path: Path) -> Iterator[str]:
    """The address of a service whose model gives two values."""
    shape = {name: value for name, value in small.items() if name != "batch_size"}
    config = VideoMAEConfig(**shape, num_labels=2, problem_type="regression")
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path)
    with running(model=str(tmp_path)) as address:
        yield address
