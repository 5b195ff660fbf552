import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from huggingface_hub import RepoCard

from videomae.commands import cli
from videomae.hub import resolve_shipped


def test_a_space_of_a_folder_runs_as_it_is(
    tmp_path: Path, videos_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = resolve_shipped("actions-tiny")
    assert model is not None
    space, clips = tmp_path / "space", videos_dir / "throw"
    assert cli.main(["space", str(model), str(space), "--examples", str(clips)]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {space}")
    front = RepoCard.load(space / "README.md").data
    assert (front.sdk, front.app_port, front.title) == ("docker", 7860, "VideoMAE")
    assert (space / "model" / "model.safetensors").is_file()
    assert "EXPOSE" not in (space / "Dockerfile").read_text()

    app = (space / "app.py").read_text()
    (space / "app.py").write_text(re.sub("7860", "0", app).replace("0.0.0.0", "127.0.0.1"))
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=space, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "/v1/" in line)
        found = re.search(r"page (http://\S+)/,", line)
        assert found
        transport = httpx.HTTPTransport(retries=9)
        with httpx.Client(base_url=found[1], transport=transport, timeout=60) as client:
            assert "Example: 0" in client.get("/").text
            clip = client.get("/examples/1").content
            answer = client.post("/v1/classify", files={"file": clip}, timeout=60)
            assert (answer.status_code, answer.json()["model"]) == (200, "model")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_a_space_of_a_shipped_model_names_it(tmp_path: Path) -> None:
    assert (
        cli.main(["space", "actions-tiny", str(tmp_path / "space"), "--title", "It's a 'test'"])
        == 0
    )
    assert "model='actions-tiny'" in (tmp_path / "space" / "app.py").read_text()
    assert not (tmp_path / "space" / "model").exists()
    assert RepoCard.load(tmp_path / "space" / "README.md").data.title == "It's a 'test'"


def test_a_space_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").touch()
    assert cli.main(["space", "actions-tiny", str(tmp_path)]) == 1
    assert "is there already; name a folder that is new or empty" in capsys.readouterr().err
    assert cli.main(["space", str(tmp_path / "none"), str(tmp_path / "space")]) == 1
    assert not (tmp_path / "space").exists()


def test_a_space_is_not_copied_into_itself_and_needs_a_folder_of_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = resolve_shipped("actions-tiny")
    assert shipped is not None
    model = shutil.copytree(shipped, tmp_path / "model")
    space = tmp_path / "space"
    for output, options, message in (
        (model / "space", [], f"space lies in {model}, which is copied; name another"),
        (space, ["--examples", str(tmp_path)], f"space lies in {tmp_path}, which is copied"),
        (space, ["--examples", str(tmp_path / "none")], "none is no folder; name a folder of sh"),
    ):
        assert cli.main(["space", str(model), str(output), *options]) == 1
        assert message in capsys.readouterr().err
        assert not output.exists()
