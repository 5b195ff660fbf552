"""The service on a Ray cluster of this machine, where Ray is installed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ray = pytest.importorskip("ray", reason="ray is not installed")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=3, include_dashboard=False)
    from ray import serve

    yield serve
    serve.shutdown()
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_replicas_answer_as_one_process_does(serve: Any, videos_dir: Path) -> None:
    from examples.ray_serve import app

    serve.start(http_options={"port": 8124})
    serve.run(app)
    url, video = "http://127.0.0.1:8124/v1/classify", (videos_dir / "throw" / "0.mp4").read_bytes()
    answers = [httpx.post(url, files={"file": video}, timeout=60) for _ in range(6)]
    assert [each.status_code for each in answers] == [200] * 6
    assert len({each.text for each in answers}) == 1
    assert httpx.post(url, files={"file": b"no video"}, timeout=60).status_code == 415
