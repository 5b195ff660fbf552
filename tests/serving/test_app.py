"""The service by its addresses, on the models that come with the package."""

import asyncio
import io
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import videomae
from videomae.errors import ConfigError
from videomae.inference import engines
from videomae.inference.reconstruct import Reconstruction
from videomae.serving import app as app_module
from videomae.serving.app import make_app
from videomae.serving.service import Service
from videomae.serving.settings import ServeSettings

OPTIONS: dict[str, Any] = {"decoders": 1, "device": "cpu", "dtype": "float32", "engine": "torch"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A client of a running service with small limits."""
    settings = ServeSettings(max_upload_mb=0.2, max_views=4, max_frames=100, **OPTIONS)
    app = make_app(Service(settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def video(videos_dir: Path) -> Path:
    return videos_dir / "walk" / "1.mp4"


def post(client: TestClient, job: str, content: bytes, name: str = "a.mp4", **fields: Any) -> Any:
    return client.post(f"/v1/{job}", files={"file": (name, content)}, data=fields)


def test_classify_gives_the_labels_of_the_function(client: TestClient, video: Path) -> None:
    answer = post(client, "classify", video.read_bytes(), top_k=3, num_clips=2)
    assert answer.status_code == 200
    found = answer.json()
    expected = videomae.classify(video, top_k=3, num_clips=2, dtype="float32", engine="torch")
    assert [each["label"] for each in found["predictions"]] == list(expected.labels)
    scores = [each["score"] for each in found["predictions"]]
    assert scores == pytest.approx(expected.scores, abs=1e-5)
    assert found["video"]["num_frames"] == 8
    assert (found["video"]["width"], found["model"], found["frames"]) == (24, "actions-tiny", None)


def test_the_frames_that_were_looked_at_come_along_if_asked(
    client: TestClient, video: Path
) -> None:
    frames = post(client, "classify", video.read_bytes(), frames=True).json()["frames"]
    assert len(frames) == 16
    assert all(each.startswith("data:image/webp;base64,") for each in frames)


@pytest.mark.parametrize("features", ["pooled", "per_time", "tokens"])
def test_embed_gives_the_features_of_the_function(
    features: Any, client: TestClient, video: Path
) -> None:
    found = post(client, "embed", video.read_bytes(), features=features).json()
    expected = videomae.embed(video, features=features, dtype="float32", engine="torch").features
    assert found["shape"] == list(expected.shape)
    np.testing.assert_allclose(np.array(found["features"]), expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "frames"), [("png", 1), ("gif", 16)])
def test_reconstruct_gives_the_clip_of_the_function(
    kind: str, frames: int, client: TestClient, video: Path, tmp_path: Path
) -> None:
    answer = post(client, "reconstruct", video.read_bytes(), mask_ratio=0.75, seed=3, format=kind)
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{kind}")
    expected = videomae.reconstruct(
        video, mask_ratio=0.75, seed=3, dtype="float32", engine="torch", device="cpu"
    )
    assert float(answer.headers["x-loss"]) == pytest.approx(expected.loss, abs=1e-5)
    image = Image.open(io.BytesIO(answer.content))
    assert getattr(image, "n_frames", 1) == frames
    assert image.size == Image.open(expected.save(tmp_path / f"x.{kind}")).size


@pytest.mark.parametrize(
    ("content", "fields", "status", "words"),
    [
        (b"", {}, 422, "the upload is empty; send a video as the form field `file`"),
        (b"no video", {}, 415, "x.txt: cannot be opened as a video"),
        (b"#EXTM3U\n/etc/passwd\n", {}, 415, "is a playlist"),
        (bytes(300_000), {}, 413, "too large"),
        (None, {"top_k": 0}, 422, "top_k: Input should be greater than or equal to 1, got '0'"),
        (None, {"top_k": "many"}, 422, "top_k: Input should be a valid integer"),
        (None, {"num_clips": "9" * 4000, "num_crops": "9" * 4000}, 400, "Part exceeded maximum"),
        (None, {str(index): 1 for index in range(30)}, 400, "Too many fields"),
        (None, {"num_clips": 5}, 422, "num_clips x num_crops is 5; at most 4 views"),
    ],
)
def test_what_cannot_be_answered_is_a_problem_that_says_why(
    content: bytes | None, fields: dict[str, Any], status: int, words: str,
    client: TestClient, video: Path,
) -> None:  # fmt: skip
    answer = post(client, "classify", content or b"", "../../x.txt", **fields)
    if content is None:
        answer = post(client, "classify", video.read_bytes(), **fields)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert re.search(re.escape(words), problem["detail"], re.IGNORECASE)
    assert tempfile.gettempdir() not in problem["detail"]


def test_a_request_without_a_file_is_a_problem(client: TestClient) -> None:
    answer = client.post("/v1/embed", data={"features": "pooled"})
    assert (answer.status_code, answer.json()["detail"]) == (422, "file: Field required")
    assert client.get("/v1/classify").status_code == 405
    assert client.get("/nothing").json()["status"] == 404


def test_a_name_instead_of_a_file_is_told_from_a_file(client: TestClient) -> None:
    answer = client.post("/v1/embed", data={"file": "clip.mp4"})
    assert answer.status_code == 422
    assert answer.json()["detail"] == (
        "file: it holds text instead of a file with its name (curl: -F file=@clip.mp4), got "
        "'clip.mp4'"
    )


def test_a_name_in_half_characters_is_answered(client: TestClient) -> None:
    # The client chooses the encoding of names, and Python knows some of half characters.
    body = (
        '--x\r\nContent-Disposition: form-data; name="file"; filename="\\ud800"\r\n\r\nno video'
        "\r\n--x--\r\n"
    )
    kind = "multipart/form-data; boundary=x; charset=raw_unicode_escape"
    answer = client.post("/v1/embed", content=body, headers={"content-type": kind})
    assert answer.status_code == 415
    assert answer.json()["detail"].startswith("?: cannot be opened as a video")


def test_a_failure_of_the_service_is_a_problem_too(
    client: TestClient, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videomae.inference.predict.classification", None)
    answer = post(client, "classify", video.read_bytes())
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "the service failed (TypeError); its log says where"


def test_scores_of_a_regression_are_no_shares(regression_address: str, video: Path) -> None:
    with video.open("rb") as file:
        answer = httpx.post(f"{regression_address}/v1/classify", files={"file": file}, timeout=60)
    assert answer.json()["are_shares"] is False


def test_places_of_several_views_are_refused(client: TestClient, video: Path) -> None:
    answer = post(client, "embed", video.read_bytes(), features="tokens", num_clips=2)
    assert answer.status_code == 422
    assert "cannot be averaged" in answer.json()["detail"]


def test_no_upload_stays_on_the_disk(
    client: TestClient, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert post(client, "classify", video.read_bytes()).status_code == 200
    assert post(client, "reconstruct", video.read_bytes()).status_code == 200
    assert post(client, "classify", b"no video").status_code == 415
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_leaves_while_its_clip_is_written_leaves_nothing_behind(
    client: TestClient, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    save, encoded = Reconstruction.save, app_module._encoded

    def save_later(self: Reconstruction, path: Path) -> Path:
        begun.set()
        assert go_on.wait(60)
        return save(self, path)

    def encode_noting(*arguments: Any) -> bytes:
        try:
            return encoded(*arguments)
        finally:
            ended.set()

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Reconstruction, "save", save_later)
    monkeypatch.setattr(app_module, "_encoded", encode_noting)
    address = "http://testserver/v1/reconstruct"
    request = client.build_request("POST", address, files={"file": ("a.mp4", video.read_bytes())})
    parts = [{"type": "http.request", "body": request.read(), "more_body": False}]

    async def receive() -> Any:
        if parts:
            return parts.pop()
        await asyncio.to_thread(begun.wait, 60)
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        raise AssertionError("nobody reads it")

    async def ask() -> None:
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        scope = {"type": "http", "method": "POST", "path": request.url.path, "headers": headers}
        await client.app({**scope, "query_string": b"", "root_path": ""}, receive, send)

    assert client.portal is not None
    client.portal.call(ask)
    go_on.set()
    assert ended.wait(60)
    assert list(tmp_path.glob("videomae-*")) == []


def test_the_model_and_the_state_are_told(client: TestClient, video: Path) -> None:
    facts = client.get("/v1/model").json()
    assert facts["model"] == "actions-tiny"
    assert len(facts["labels"]) == 20
    assert facts["licence"] == "apache-2.0"
    assert facts["limits"]["max_upload_mb"] == 0.2
    assert facts["image_size"] == [64, 64]
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.head("/readyz").status_code == client.head("/healthz").status_code == 200
    before = counted(client, 'requests_total{job="classify",outcome="200"}')
    batches = counted(client, "batch_views_count")
    post(client, "classify", video.read_bytes())
    assert counted(client, 'requests_total{job="classify",outcome="200"}') == before + 1
    assert counted(client, "batch_views_count") == batches + 1
    assert counted(client, "queue_length") == 0
    assert counted(client, "decode_seconds_count") > 0


def counted(client: TestClient, name: str) -> float:
    """A figure of /metrics, 0 where it is not there yet."""
    lines = client.get("/metrics").text.splitlines()
    return next((float(x.split()[-1]) for x in lines if x.startswith(f"videomae_{name} ")), 0)


def test_openapi_has_examples_and_problems(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/v1/classify", "/v1/embed", "/v1/reconstruct", "/v1/model"}
    for path, methods in paths.items():
        if "post" in methods:
            answers = methods["post"]["responses"]
            assert {"200", "408", "413", "415", "422", "429"} <= set(answers), path
            assert "application/problem+json" in answers["415"]["content"]
            assert ("404" in answers) == (path != "/v1/embed")  # a model may not be there


def test_what_is_no_form_is_a_wrong_field_and_a_broken_form_a_bad_request(
    client: TestClient,
) -> None:
    for given in ({"json": {"a": 1}}, {"content": b"hello"}, {}):
        assert client.post("/v1/classify", **given).status_code == 422
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/classify", content=b"hello", headers=kind).status_code == 400


def test_the_page_is_whole_and_asks_nobody_else(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert not re.findall(r"(?:src|href)=\"(?!data:)[a-z]+:", page.text)
    for part in re.findall(r'(?:src|data-address)="([\w/.]+)"', page.text):
        assert client.get(f"/{part}").status_code == 200, part
    assert client.get("/examples/9").status_code == 404
    clip = client.get("/examples/0").content
    found = post(client, "classify", clip).json()["predictions"][0]["label"]
    assert found in client.get("/v1/model").json()["labels"]


def test_tokens_guard_the_service_and_close_the_page(video: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("\n")
    with pytest.raises(ConfigError, match=r"tokens=.* holds none; write one per line"):
        ServeSettings(tokens=tokens)
    tokens.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"tokens=.* cannot be read .*; name a file of UTF-8"):
        ServeSettings(tokens=tokens)
    tokens.write_bytes(b"\xef\xbb\xbfsecret\r\n")  # as Windows writes it
    settings = ServeSettings(tokens=tokens, model="actions-tiny-pretrain", **OPTIONS)
    with TestClient(make_app(Service(settings))) as client:
        assert client.get("/").status_code == 404
        assert post(client, "embed", b"").status_code == 401
        client.headers["authorization"] = "Bearer secret"
        assert post(client, "embed", video.read_bytes()).status_code == 200
        # A pre-trained model has no classes, and says so.
        answer = post(client, "classify", video.read_bytes())
        assert answer.status_code == 404
        assert "has no classes; ask /v1/embed or /v1/reconstruct" in answer.json()["detail"]
        assert post(client, "reconstruct", video.read_bytes()).status_code == 200


def test_the_service_is_awake_while_a_model_is_made_ready_for_features(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, made_in = engines.load, list[str]()

    def noted(*args: Any, **options: Any) -> Any:
        made_in.append(threading.current_thread().name)
        return load(*args, **options)

    with TestClient(make_app(Service(ServeSettings(**OPTIONS)))) as client:
        monkeypatch.setattr(engines, "load", noted)
        for _ in range(2):
            assert post(client, "embed", video.read_bytes()).status_code == 200
    assert made_in == ["videomae-model_0"]  # and not in that of the requests


def test_other_sites_may_ask_where_they_are_allowed(client: TestClient) -> None:
    headers = {"Origin": "https://else.where", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.options("/v1/embed", headers=headers).headers
    settings = ServeSettings(allow_origins=("https://else.where",), **OPTIONS)
    with TestClient(make_app(Service(settings))) as open_client:
        found = open_client.options("/v1/embed", headers=headers).headers
    assert found["access-control-allow-origin"] == "https://else.where"
