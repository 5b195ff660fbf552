"""Errors over HTTP as RFC 9457 problem details: what was got, what was expected, how to fix it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from videomae.errors import ConfigError, NoVideoError, VideoError, VideoMAEError

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Why a request was not answered."""

    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(
        examples=["clip.mp4: is no video that can be read; expected mp4, mkv, webm, avi or gif"]
    )


class Refusal(HTTPException):
    """A request that is not answered, with its status and the reason."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)

    def response(self) -> JSONResponse:
        """The answer that says so."""
        return _response(self.status_code, str(self.detail), self.headers)


def _response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    detail = detail.encode("utf-8", "replace").decode()  # half a character, of a file's name
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(problem.model_dump(), status, headers, media_type=MEDIA_TYPE)


def answer_problems(app: FastAPI) -> None:
    """Let an app answer every error as a problem."""

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return _response(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        parts = [
            f"{'.'.join(map(str, each['loc'][1:])) or 'body'}: {_words(each)}"
            + (f", got {_short(each['input'])}" if each.get("input") is not None else "")
            for each in error.errors()
        ]
        return _response(422, "; ".join(parts))

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return _response(500, f"the service failed ({type(error).__name__}); its log says where")

    @app.exception_handler(VideoMAEError)
    async def unusable(_: Request, error: VideoMAEError) -> JSONResponse:
        status = 415 if isinstance(error, NoVideoError) else 422
        known = isinstance(error, VideoError | ConfigError)
        return _response(status if known else 500, str(error))


def _words(error: dict[str, Any]) -> str:
    if "UploadFile" in error["msg"]:
        return "it holds text instead of a file with its name (curl: -F file=@clip.mp4)"
    return str(error["msg"])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an operation can answer with, for OpenAPI."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "model": Problem,
            "content": {MEDIA_TYPE: schema},
        }
        for status in statuses
    }
