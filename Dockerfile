# videomae serve, on a CPU: docker build -t videomae . && docker run -p 8000:8000 videomae
#
# PyTorch's wheels for GPUs hold gigabytes that a CPU has no use for; its index of wheels for CPUs
# can be named: docker build --build-arg PIP_EXTRA_INDEX_URL=... .
FROM python:3.11-slim AS build
ARG PIP_EXTRA_INDEX_URL=""
RUN python -m venv /opt/videomae
ENV PATH=/opt/videomae/bin:$PATH
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt ".[serve]"

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin videomae
COPY --from=build /opt/videomae /opt/videomae
# Models that are downloaded or converted go to a place that may be written, as the root may not.
ENV PATH=/opt/videomae/bin:$PATH HF_HOME=/tmp/huggingface XDG_CACHE_HOME=/tmp/cache PYTHONDONTWRITEBYTECODE=1
USER videomae
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["videomae", "serve", "--host", "0.0.0.0"]
