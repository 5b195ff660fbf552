"""Local folders, shipped models, the hub's cache and its errors, atomic writing."""

import json
import os
import pickle
import socket
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors as hub_errors

from videomae import hub
from videomae.errors import ConfigError, SourceError, WeightsError


@pytest.fixture(autouse=True)
def hub_that_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the hub whether a file is there; some say otherwise."""
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 8}')
    return folder


def test_the_home_of_an_unknown_user_is_a_path_as_it_is() -> None:
    assert hub.local_path("~nosuchuser/m") == Path("~nosuchuser/m")
    with pytest.raises(SourceError):
        hub.fetch("~nosuchuser/m", "config.json")


def test_a_folder_gives_its_file(folder: Path) -> None:
    assert hub.fetch(folder, "config.json") == folder / "config.json"
    assert hub.fetch(str(folder), "config.json") == folder / "config.json"


def test_a_missing_file_says_what_is_there(folder: Path) -> None:
    assert hub.find(folder, "x.bin") is None
    with pytest.raises(hub.AbsentError, match=r"has no x\.bin; it holds: config\.json"):
        hub.fetch(folder, "x.bin")
    with pytest.raises(hub.AbsentError, match=r"has no x\.bin or y\.bin; it holds: config"):
        hub.fetch(folder, "x.bin", "y.bin")
    assert hub.fetch(folder, "x.bin", "config.json") == folder / "config.json"


@pytest.mark.parametrize(
    "name", ["../config.json", "/etc/passwd", "a/../../b", "C:\\x", "..\\x", "", "\\\\host\\x"]
)
def test_names_that_lead_out_of_the_folder_are_not_opened(folder: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="would lead out of it"):
        hub.fetch(folder, name)


@pytest.mark.parametrize(
    "name", ["./nowhere", "~/nowhere", "a/b/c", "a\\b", "a b", "a--b", "x.pth", Path("x")]
)
def test_a_path_that_does_not_exist_is_not_asked_of_the_hub(
    name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    with pytest.raises(WeightsError, match="does not exist; expected a folder"):
        hub.fetch(name, "config.json")


def test_a_file_is_no_place_to_look_in(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"is a file, and a\.json was looked for in it"):
        hub.fetch(folder / "config.json", "a.json")


def test_shipped_models_are_found_by_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_ASSETS_DIR", tmp_path)
    monkeypatch.chdir(folder)
    assert hub.shipped_names() == ["model"]
    assert hub.resolve_shipped("model") == folder
    assert hub.resolve_shipped("../model") is None
    assert hub.resolve_shipped("other/model") is None
    assert hub.fetch("model", "config.json") == folder / "config.json"


def test_the_cache_serves_without_a_connection(tmp_path: Path) -> None:
    """Laid out as huggingface_hub does: refs/main names a snapshot folder."""
    repo = tmp_path / "models--owner--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "snapshots" / "abc" / "config.json").write_text("{}")
    where: dict[str, Any] = {"cache_dir": tmp_path, "local_files_only": True}
    path = hub.fetch("owner/name", "config.json", **where)
    assert path == repo / "snapshots" / "abc" / "config.json"
    assert hub.find("owner/name", "model.safetensors", **where) is None
    assert hub.find("owner/name", "model.safetensors", "config.json", **where) == path
    with pytest.raises(WeightsError, match=r"not in the cache, and local_files_only=True forbids"):
        hub.fetch("owner/name", "model.safetensors", **where)


def _raised(kind: type[Exception]) -> Exception:
    """The hub's HTTP errors want a response, which differs between its releases."""
    error = kind.__new__(kind)
    Exception.__init__(error, "told")
    return error


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (hub_errors.GatedRepoError, "open only to those whom its owner lets in"),
        (hub_errors.RepositoryNotFoundError, "has no model owner/name, or it is private"),
        (hub_errors.RevisionNotFoundError, "has no revision 'v9'"),
        (hub_errors.LocalEntryNotFoundError, "the hub could not be reached"),
        (hub_errors.EntryNotFoundError, r"owner/name \(revision v9\) has no config.json"),
        (OSError, "could not be downloaded: told"),
    ],
)
def test_each_error_of_the_hub_is_explained(
    kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise _raised(kind)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsError, match=message):
        hub.fetch("owner/name", "config.json", revision="v9")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("motion-tinny", "actions-tiny"),
        ("videomae-base", "MCG-NJU/videomae-base"),
        ("videomae-large-finetuned-kinetics", "MCG-NJU/videomae-large-finetuned-kinetics"),
    ],
)
def test_a_name_without_owner_is_answered_at_once_with_the_nearest(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", None)
    with pytest.raises(SourceError, match=f"{name} does not exist; .*; did you mean '{meant}'"):
        hub.fetch(name, "config.json")


def _fail(error: Exception) -> Any:
    def ask(*_: Any, **__: Any) -> None:
        raise error

    return ask


def test_without_connection_the_hub_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)  # it would try for 30 seconds
    no_connection = ConnectionError("Name or service not known")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", _fail(no_connection))
    message = r"the hub could not be reached; .*; did you mean 'MCG-NJU/videomae-base'\? \(Name or"
    with pytest.raises(SourceError, match=message):
        hub.fetch("MCG-NJU/videomae-bas", "config.json", "x.bin", cache_dir=tmp_path)
    with pytest.raises(SourceError, match=r"holds the files \(Name or"):  # the name is right
        hub.fetch("MCG-NJU/videomae-base", "config.json", cache_dir=tmp_path)


def test_a_hub_without_the_model_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unknown = _raised(hub_errors.RepositoryNotFoundError)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", _fail(unknown))
    with pytest.raises(SourceError, match=r"no model MCG-NJU/videomae-bsae, .*; did you mean"):
        hub.fetch("MCG-NJU/videomae-bsae", "config.json", cache_dir=tmp_path)


def test_a_hub_in_trouble_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trouble = _raised(hub_errors.HfHubHTTPError)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", _fail(trouble))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: "/cache/config.json")
    found = hub.fetch("owner/name", "config.json", cache_dir=tmp_path)
    assert found == Path("/cache/config.json")


def test_an_optional_file_may_be_absent_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise _raised(hub_errors.EntryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert hub.find("owner/name", "config.json") is None


def test_without_connection_an_optional_file_is_absent_only_beside_a_cached_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise _raised(hub_errors.LocalEntryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: "/config.json")
    assert hub.find("owner/name", "model.safetensors") is None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(WeightsError, match="the hub could not be reached"):
        hub.find("owner/name", "model.safetensors")


def test_the_hub_gets_the_arguments_that_concern_it(monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, Any] = {}

    def download(repo_id: str, filename: str, **options: Any) -> str:
        got.update(options, repo_id=repo_id, filename=filename)
        return "/cache/config.json"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    where: dict[str, Any] = {"revision": "v1", "token": "t", "cache_dir": "c"}
    where |= {"subfolder": "s", "force_download": True}
    path = hub.fetch("owner/name", "config.json", **where)
    assert path == Path("/cache/config.json")
    assert got == {"repo_id": "owner/name", "filename": "config.json", **where}
    keywords = {**where, "num_labels": 3}
    assert hub.take_arguments(keywords) == where
    assert keywords == {"num_labels": 3}


def test_arguments_that_ask_for_nothing_are_accepted_and_others_refused() -> None:
    neutral: dict[str, Any] = {"proxies": None, "use_auth_token": None, "use_fast": True}
    assert hub.take_arguments({**neutral, "trust_remote_code": True, "_from_auto": True}) == {}
    for name, value, way_round in (
        ("proxies", {"https": "x"}, "set HTTPS_PROXY"),
        ("use_auth_token", "t", "pass token="),
    ):
        with pytest.raises(ConfigError, match=rf"{name}=.* is not supported; {way_round}"):
            hub.take_arguments({name: value})


def test_a_subfolder_is_looked_in(folder: Path) -> None:
    path = hub.fetch(folder.parent, "config.json", subfolder="model")
    assert path == folder / "config.json"
    with pytest.raises(SourceError, match=r"model/x does not exist; check subfolder="):
        hub.fetch(folder, "config.json", subfolder="x")


def test_what_cannot_be_found_or_read_is_an_oserror_too(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    for get in (
        lambda: hub.fetch("./nowhere", "config.json"),
        lambda: hub.fetch(folder, "x.bin"),
        lambda: hub.read_json(folder / "config.json"),
    ):
        with pytest.raises(OSError, match=r"does not exist|has no x\.bin|not valid JSON") as caught:
            get()
        assert isinstance(caught.value, WeightsError)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


class FakeApi:
    """Notes what it is asked to do."""

    calls: list[tuple[str, Any]]

    def __init__(self, token: Any = None) -> None:
        FakeApi.calls = [("token", token)]

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_repo", (repo_id, options)))

    def create_branch(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_branch", (repo_id, options)))

    def upload_folder(self, **options: Any) -> Any:
        self.calls.append(("upload_folder", options))
        return SimpleNamespace(commit_url="https://commit")


def test_pushing_makes_repository_and_branch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    url = hub.push_folder(folder, "me/model", private=True, token="t", revision="v2")
    assert url == "https://commit"
    assert FakeApi.calls == [
        ("token", "t"),
        ("create_repo", ("me/model", {"private": True, "exist_ok": True})),
        ("create_branch", ("me/model", {"branch": "v2", "exist_ok": True})),
        (
            "upload_folder",
            {
                "repo_id": "me/model",
                "folder_path": folder,
                "commit_message": "Upload VideoMAE model",
                "commit_description": None,
                "revision": "v2",
                "create_pr": False,
            },
        ),
    ]


def test_what_is_saved_is_pushed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    held: list[str] = []
    upload = FakeApi.upload_folder

    def look(self: FakeApi, **options: Any) -> Any:
        held.extend(path.name for path in Path(options["folder_path"]).iterdir())
        return upload(self, **options)

    monkeypatch.setattr(FakeApi, "upload_folder", look)
    write = lambda where: hub.write_json(Path(where) / "a.json", {})  # noqa: E731
    assert hub.push_saved(write, "me/model", private=True) == "https://commit"
    assert held == ["a.json"]


def test_keywords_of_a_push_are_checked_before_anything_is_saved() -> None:
    with pytest.raises(ConfigError, match=r"tags=.* is not supported; write them into the README"):
        hub.push_saved(pytest.fail, "me/model", tags=["x"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'privat'"):
        hub.push_saved(pytest.fail, "me/model", privat=True)


def test_a_refused_push_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(FakeApi):
        def create_repo(self, *_: Any, **__: Any) -> None:
            raise OSError("401")

    monkeypatch.setattr(huggingface_hub, "HfApi", Refusing)
    with pytest.raises(WeightsError, match="could not be uploaded to me/model; log in"):
        hub.push_folder(folder, "me/model")


def test_atomic_path_puts_the_file_in_place_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "clip.mp4"
    with hub.atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".mp4"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_atomic_path_leaves_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")

    def write() -> None:
        with hub.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.skipif(os.name == "nt", reason="no permission bits")
def test_atomic_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    hub.write_json(tmp_path / "x.json", {})
    with hub.atomic_path(tmp_path / "x.bin") as temporary:  # as safetensors does
        private = tmp_path / "private"
        private.touch(0o600)
        private.replace(temporary)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_json_keeps_order_and_letters(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    value = {"b": "größe", "a": [1, None]}
    hub.write_json(path, value)
    assert list(hub.read_json(path)) == ["b", "a"]
    assert hub.read_json(path) == value
    assert (
        path.read_text(encoding="utf-8") == json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    )


def test_what_json_cannot_hold_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        hub.write_json(tmp_path / "x.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1]", r"holds a list, expected an object \{"),
    ],
)
def test_bad_json_is_explained(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        hub.read_json(path)


def test_missing_json_is_explained(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"x\.json does not exist"):
        hub.read_json(tmp_path / "x.json")


def test_an_output_that_cannot_be_written_is_known_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.check_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write to the output folder .*run: .* is a file"):
        hub.check_writable(tmp_path / "file" / "run")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot be written to; name another one"):
        hub.check_writable(tmp_path)


class Hub:
    """A hub that lets nobody in but those with a token, and notes what it was sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, is_public: bool, stored: str | None):
        self.sent: list[Any] = []
        self.is_public = is_public
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", self.ask)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: stored)

    def ask(self, _: str, token: Any = None) -> None:
        self.sent.append(token)
        if not self.is_public and token is False:
            raise _raised(hub_errors.RepositoryNotFoundError)

    def download(self, *_: Any, token: Any = None, **__: Any) -> str:
        self.sent.append(token)
        return "/cache/config.json"


@pytest.mark.parametrize(
    ("is_public", "stored", "token", "sent"),
    [
        (True, "stored", None, [False, False]),
        (True, None, None, [False, False]),
        (False, "stored", None, [False, None, None]),  # None: huggingface_hub takes the stored one
        (False, "stored", "mine", ["mine", "mine"]),
        (True, "stored", True, [True, True]),
    ],
)
def test_a_token_is_sent_where_nothing_is_found_without(
    is_public: bool,
    stored: str | None,
    token: Any,
    sent: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    served = Hub(monkeypatch, is_public=is_public, stored=stored)
    hub.fetch("owner/name", "config.json", token=token, cache_dir=tmp_path)
    assert served.sent == sent


def test_a_hidden_model_stays_hidden_without_a_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served = Hub(monkeypatch, is_public=False, stored=None)
    with pytest.raises(SourceError, match="or it is private"):
        hub.fetch("owner/name", "config.json", cache_dir=tmp_path)
    assert served.sent == [False]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("runs/modle", "runs/model"),
        ("rusn/model", "runs/model"),
        ("runs/Model", "runs/model"),
        ("runs/anything", None),
        ("owner/name", None),
        ("MCG-NJU/videomae-base", None),  # published, whatever lies here
        ("MCG-NJU/videomae-bsae", "MCG-NJU/videomae-base-mine"),
    ],
)
def test_a_folder_of_nearly_that_name_is_told_before_the_hub_is_asked(
    name: str, meant: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("runs/model", "MCG-NJU/videomae-base-mine"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    served = Hub(monkeypatch, is_public=True, stored="stored")
    if meant is None:
        hub.fetch(name, "config.json", cache_dir=tmp_path)
        assert served.sent == [False, False]
        return
    with pytest.raises(SourceError, match=rf"no folder {name}, but {meant} is one; .* not asked"):
        hub.fetch(name, "config.json", cache_dir=tmp_path)
    assert not served.sent
