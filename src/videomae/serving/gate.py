"""The gate before the service: who comes in, how many at once, and for how long."""

import asyncio
import contextlib
import hmac
import math
import time
from collections.abc import Callable, Sequence

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videomae.serving.problems import Refusal

GUARDED = "/v1/"
_MAX_DRAINED_BYTES = 2**20  # of a refused request, so that its client reads the answer
_MAX_DRAINED_SECONDS = 1.0


class Gate:
    """Refuse requests before their body is read, bound the others in time, drop those left alone.

    tokens: bearer tokens, one of which each guarded request must bring; none lets everybody in.
    max_requests: requests at once. max_bytes: of a body. max_seconds: from the first byte of a
    request to its answer.
    is_stopping: whether all are refused, as the service ends. count: takes the job and the status
    of each request when it ends, None where the client went away.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: Sequence[str],
        max_requests: int,
        max_bytes: int,
        max_seconds: float,
        is_stopping: Callable[[], bool],
        count: Callable[[str, int | None], None],
    ) -> None:
        self.app = app
        self._tokens = [token.encode() for token in tokens]
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._max_seconds = max_seconds
        self._is_stopping, self._count = is_stopping, count
        self._admitted = 0
        self._usual_seconds = 1.0  # a running mean of what a request takes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The path that routes are found by: a server puts the root path before that of the request.
        path = get_route_path(scope) if scope["type"] == "http" else ""
        if not path.startswith(GUARDED) or scope["method"] == "OPTIONS":
            await self.app(scope, receive, send)
            return
        status: int | None = None
        is_lost = False

        async def send_noting(message: Message) -> None:
            nonlocal status, is_lost
            if is_lost:
                return
            try:
                await send(message)
            except Exception:
                # A server that finds a body to be no HTTP says so itself, and then can send no
                # answer: uvicorn raises an error of h11's own.
                is_lost = True
            else:
                status = message.get("status", status)

        refusal = self._refusal(Headers(scope=scope))
        try:
            if refusal:
                await self._drain(receive)
                await refusal.response()(scope, receive, send_noting)
            else:
                await self._admit(scope, receive, send_noting)
        except Exception:
            status = 500  # sent by what is around the gate
            raise
        finally:
            self._count(path.removeprefix(GUARDED), status)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._admitted += 1
        start = time.monotonic()
        try:
            await self._serve(scope, receive, send)
        finally:
            self._admitted -= 1
            self._usual_seconds += 0.1 * (time.monotonic() - start - self._usual_seconds)

    def _refusal(self, headers: Headers) -> Refusal | None:
        kind, _, token = headers.get("authorization", "").encode("latin-1").partition(b" ")
        if self._tokens and not (
            kind.lower() == b"bearer"
            and any(hmac.compare_digest(token.strip(), each) for each in self._tokens)
        ):
            advice = "send the header Authorization: Bearer TOKEN with a token of this service"
            return Refusal(401, advice, {"WWW-Authenticate": "Bearer", "Connection": "close"})
        if self._is_stopping():
            return Refusal(503, "the service is stopping", {"Connection": "close"})
        if self._admitted >= self._max_requests:
            seconds = max(1, math.ceil(self._usual_seconds))
            return Refusal(
                429,
                f"{self._admitted} requests are being answered, as many as are taken at once; come "
                f"back in {seconds} s",
                {"Retry-After": str(seconds), "Connection": "close"},
            )
        if int(headers.get("content-length", "0")) > self._max_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            f"the upload is too large; at most {self._max_bytes / 1e6:,.4g} MB are taken here",
            {"Connection": "close"},
        )

    async def _drain(self, receive: Receive) -> None:
        """Read what a refused client has sent already, as it may read no answer before."""
        drained = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MAX_DRAINED_SECONDS):
                while drained < _MAX_DRAINED_BYTES:
                    message = await receive()
                    drained += len(message.get("body", b""))
                    if not message.get("more_body"):
                        return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app until it has answered, its client is gone, or its time is over."""
        whole, gone, started, received = asyncio.Event(), asyncio.Event(), False, 0

        async def receive_body() -> Message:
            nonlocal received
            if whole.is_set():  # nothing but the end of the connection is to come: see `watch`
                await gone.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:  # of a body without a length, or with a wrong one
                raise self._too_large()
            if message["type"] == "http.disconnect":
                gone.set()
            if not message.get("more_body"):
                whole.set()
            return message

        async def watch() -> None:
            await whole.wait()
            while not gone.is_set():
                if (await receive())["type"] == "http.disconnect":
                    gone.set()

        async def send_answer(message: Message) -> None:
            nonlocal started
            if gone.is_set():  # nobody reads it, and it is not how the request ended
                return
            started = True
            await send(message)

        answering = asyncio.ensure_future(self.app(scope, receive_body, send_answer))
        watching = asyncio.ensure_future(watch())
        try:
            await asyncio.wait(
                {answering, watching},
                timeout=self._max_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not answering.done() and not gone.is_set() and not started:
                refusal = Refusal(
                    408,
                    f"the request took more than {self._max_seconds:g} s; send a smaller video or "
                    "ask for fewer views",
                    {"Connection": "close"},
                )
                await _cancel(answering)
                await refusal.response()(scope, receive, send)
        finally:
            await _cancel(watching)
            await _cancel(answering)
        if not answering.cancelled():
            answering.result()


async def _cancel(task: "asyncio.Future[None]") -> None:
    """Stop a task, and wait until it has cleaned up."""
    if not task.done():
        task.cancel()
    with contextlib.suppress(BaseException):
        await asyncio.shield(asyncio.gather(task, return_exceptions=True))
