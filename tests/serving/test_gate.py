import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from videomae.serving.gate import Gate
from videomae.serving.problems import Refusal


class Echo:
    """An app that reads its body, waits to be released, and answers 200; it notes its ends."""

    def __init__(self) -> None:
        self.release, self.ends = asyncio.Event(), []

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        try:
            while (await receive()).get("more_body"):
                pass
            await self.release.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
            self.ends.append("answered")
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise


class Client:
    """One request: what the server receives of it, and what it was sent."""

    def __init__(
        self, *parts: bytes, path: str = "/v1/classify", token: str = "", length: int = 0,
        root_path: str = "",
    ) -> None:  # fmt: skip
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        headers += [(b"content-length", str(length).encode())] if length else []
        self.scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        self.scope["root_path"] = root_path
        self.to_come: asyncio.Queue[Message] = asyncio.Queue()
        for index, part in enumerate(parts):
            more = index + 1 < len(parts)
            self.to_come.put_nowait({"type": "http.request", "body": part, "more_body": more})
        self.num_read, self.sent = 0, list[Message]()

    async def receive(self) -> Message:
        message = await self.to_come.get()
        self.num_read += 1
        return message

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self.to_come.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def problem(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.sent[1]["body"])
        return found


def through(work: Any, **options: Any) -> tuple[Any, list[Any]]:
    """What `work(gate, echo)` gives, and the (job, status) that were counted."""
    counted: list[Any] = []

    async def main() -> Any:
        echo = Echo()
        gate = Gate(
            echo,
            **{
                "tokens": [],
                "max_requests": 2,
                "max_bytes": 1000,
                "max_seconds": 5.0,
                "is_stopping": lambda: False,
                "count": lambda *each: counted.append(each),
                **options,
            },
        )
        return await work(gate, echo)

    return asyncio.run(main()), counted


def start(gate: Gate, client: Client) -> "asyncio.Task[None]":
    async def run() -> None:
        await gate(client.scope, client.receive, client.send)

    return asyncio.get_running_loop().create_task(run())


def test_too_many_requests_are_refused_with_the_time_to_come_back() -> None:
    async def work(gate: Gate, echo: Echo) -> None:
        first, second, third, fourth = (Client(b"body") for _ in range(4))
        tasks = [start(gate, each) for each in (first, second)]
        await asyncio.sleep(0.01)
        await gate(third.scope, third.receive, third.send)
        assert third.status == 429
        assert int(third.headers["retry-after"]) >= 1
        assert third.headers["content-type"] == "application/problem+json"
        assert third.problem["status"] == 429
        assert "as many as are taken at once" in third.problem["detail"]
        echo.release.set()
        await asyncio.gather(*tasks)
        assert (first.status, second.status) == (200, 200)
        await gate(fourth.scope, fourth.receive, fourth.send)
        assert fourth.status == 200  # there is room again

    _, counted = through(work)
    assert sorted(counted) == [("classify", 200)] * 3 + [("classify", 429)]


def test_a_refused_client_that_goes_on_sending_is_not_read_to_the_end() -> None:
    async def work(gate: Gate, _: Echo) -> None:
        client = Client(*[bytes(2**18)] * 1000, b"")
        await gate(client.scope, client.receive, client.send)
        assert client.status == 503
        assert client.num_read <= 5
        assert client.headers["connection"] == "close"

    through(work, is_stopping=lambda: True)


@pytest.mark.parametrize(
    ("token", "status"), [("", 401), ("wrong", 401), ("right", 200), ("für uns", 200)]
)
def test_a_service_with_tokens_wants_one(token: str, status: int) -> None:
    async def work(gate: Gate, echo: Echo) -> None:
        echo.release.set()
        client = Client(b"", token=token)
        await gate(client.scope, client.receive, client.send)
        assert client.status == status
        other = Client(b"", path="/healthz")
        await gate(other.scope, other.receive, other.send)
        assert other.status == 200

    through(work, tokens=["other", "right", "für uns"])


@pytest.mark.parametrize(
    ("root_path", "path"),
    [("/a/b", "/a/b/v1/classify"), ("/v", "/v/v1/classify"), ("/v", "/v1/classify")],
)
def test_a_root_path_opens_no_way_around_the_gate(root_path: str, path: str) -> None:
    async def work(gate: Gate, echo: Echo) -> None:
        echo.release.set()
        client = Client(b"", path=path, root_path=root_path)
        await gate(client.scope, client.receive, client.send)
        assert client.status == 401

    assert through(work, tokens=["right"])[1] == [("classify", 401)]


def test_a_request_that_fails_is_counted_as_failed() -> None:
    async def work(gate: Gate, _: Echo) -> None:
        async def fail(*_: Any) -> None:
            raise ZeroDivisionError

        gate.app, client = fail, Client(b"")
        with pytest.raises(ZeroDivisionError):
            await gate(client.scope, client.receive, client.send)

    assert through(work)[1] == [("classify", 500)]


@pytest.mark.parametrize("parts", [(b"whole",), (b"first", b"never the second")])
def test_a_request_that_takes_too_long_is_ended(parts: tuple[bytes, ...]) -> None:
    async def work(gate: Gate, echo: Echo) -> None:
        client = Client(*parts)
        if len(parts) > 1:
            client.to_come.get_nowait()
            client.to_come.get_nowait()
            client.to_come.put_nowait({"type": "http.request", "body": parts[0], "more_body": True})
        await gate(client.scope, client.receive, client.send)
        assert client.status == 408
        assert "more than 0.05 s" in client.problem["detail"]
        assert echo.ends == ["cancelled"]

    assert through(work, max_seconds=0.05)[1] == [("classify", 408)]


def test_a_client_that_goes_away_frees_its_place() -> None:
    async def work(gate: Gate, echo: Echo) -> None:
        client = Client(b"body")
        task = start(gate, client)
        await asyncio.sleep(0.01)
        client.leave()
        await task
        assert (echo.ends, client.sent) == (["cancelled"], [])
        after = Client(b"body")
        echo.release.set()
        await gate(after.scope, after.receive, after.send)
        assert after.status == 200

    assert through(work, max_requests=1)[1] == [("classify", None), ("classify", 200)]


def test_a_client_that_goes_away_while_it_sends_is_counted_as_gone() -> None:
    async def work(gate: Gate, echo: Echo) -> None:
        echo.release.set()  # it answers what it has got, as the reader of forms does
        client = Client(b"first", b"never the second")
        message = client.to_come.get_nowait()
        client.to_come.get_nowait()
        client.to_come.put_nowait(message)
        client.leave()
        await gate(client.scope, client.receive, client.send)
        assert client.sent == []

    assert through(work)[1] == [("classify", None)]


@pytest.mark.parametrize("length", [0, 10**9])
def test_an_answer_that_the_server_cannot_send_any_more_is_no_error(length: int) -> None:
    class Closed(Client):
        async def send(self, _: Message) -> None:
            raise RuntimeError("it has answered 400, as the rest of the body was no HTTP")

    async def work(gate: Gate, echo: Echo) -> None:
        echo.release.set()
        client = Closed(b"body", length=length)
        await gate(client.scope, client.receive, client.send)

    assert through(work)[1] == [("classify", None)]


def test_a_body_is_refused_by_its_length_before_it_is_read_and_else_on_the_way() -> None:
    async def work(gate: Gate, echo: Echo) -> None:
        echo.release.set()
        named = Client(b"", length=1001)
        await gate(named.scope, named.receive, named.send)
        assert named.status == 413
        assert "at most 0.001 MB" in named.problem["detail"]
        unnamed = Client(bytes(600), bytes(600), b"")
        with pytest.raises(Refusal) as refusal:  # which the app behind makes an answer of
            await gate(unnamed.scope, unnamed.receive, unnamed.send)
        assert refusal.value.status_code == 413
        assert unnamed.num_read == 2

    through(work)
