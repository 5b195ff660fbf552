"""Users of the service who post one clip again and again; `benchmarks.serving` runs this."""

import os
from pathlib import Path

from locust import HttpUser, constant, constant_throughput, task

CLIP = Path(os.environ["CLIP"]).read_bytes()
RATE = float(os.environ.get("RATE", "0"))  # requests a second of each user; 0: one after another


class Uploader(HttpUser):
    wait_time = constant_throughput(RATE) if RATE else constant(0)

    @task
    def classify(self) -> None:
        with self.client.post(
            "/v1/classify", files={"file": ("clip.mp4", CLIP)}, catch_response=True
        ) as answer:
            # Told apart by name, so that locust keeps the times of each kind.
            answer.request_meta["name"] = str(answer.status_code)
            if answer.status_code in (200, 429):
                answer.success()
            else:
                answer.failure(f"status {answer.status_code}")
