"""What a service would be without care: one request at a time, decoded in the same thread.

uvicorn benchmarks.plain_app:app --port 8001; the environment variable MODEL names the model.
"""

import os
import tempfile
import threading

from fastapi import FastAPI, UploadFile

import videomae
from videomae.inference import engines

app = FastAPI()
_LOCK = threading.Lock()
_ENGINE = engines.load(os.environ.get("MODEL", "actions-tiny"), dtype="float32", engine="torch")


@app.post("/v1/classify")
def classify(file: UploadFile) -> dict[str, object]:
    """Label one video while all others wait."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as upload, _LOCK:
        upload.write(file.file.read())
        upload.flush()
        found = videomae.classify(upload.name, model=_ENGINE.model)
    return {"labels": found.labels, "scores": found.scores}


@app.get("/readyz")
def readyz() -> dict[str, str]:
    """Say that it runs."""
    return {"status": "ready"}
