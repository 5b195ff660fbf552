"""The service of `videomae serve` on a Ray cluster, as many replicas as asked for.

pip install "ray[serve]"; serve run examples.ray_serve:app
"""

import os

from ray import serve

from videomae.serving.app import make_app
from videomae.serving.service import Service
from videomae.serving.settings import ServeSettings

settings = ServeSettings(model=os.environ.get("MODEL", "actions-tiny"), decoders=1, page=False)


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=64)
@serve.ingress(lambda: make_app(Service(settings)))
class Replica:
    """A process with the model, its decoders and its batches."""


app = Replica.bind()
