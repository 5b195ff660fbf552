"""Where files come from and go to: a folder, the models inside the package, or the model hub.

The only file that knows huggingface_hub. It moves files and never looks inside weights; nothing it
downloads is ever executed.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from inspect import signature
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypedDict, Unpack, cast

from videomae.errors import (
    ConfigError,
    SourceError,
    WeightsError,
    as_text,
    nearest,
    parse_json,
    to_json,
)

PathLike = str | os.PathLike[str]


class HubArguments(TypedDict, total=False):
    """Where `fetch` looks, in huggingface_hub's words; all but `subfolder` are for the hub."""

    subfolder: str | None
    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


# What callers of transformers also pass. Without advice it changes nothing here.
_FOREIGN = {
    **dict.fromkeys(("trust_remote_code", "code_revision", "use_fast", "backend", "user_agent")),
    **dict.fromkeys(("resume_download", "mirror", "_from_auto", "_from_pipeline", "_commit_hash")),
    "proxies": "set HTTPS_PROXY in the environment",
    "use_auth_token": "pass token=",
}

_ASSETS_DIR = Path(__file__).parent / "assets"
# For the hint after a wrong name; all that can be opened is not in this list.
PUBLISHED = (
    *(f"MCG-NJU/videomae-{size}" for size in ("base", "base-short", "base-ssv2", "large")),
    "MCG-NJU/videomae-base-short-ssv2",
    *(
        f"MCG-NJU/videomae-{size}-finetuned-kinetics"
        for size in ("small", "base", "base-short", "large", "huge")
    ),
    *(f"MCG-NJU/videomae-{size}-finetuned-ssv2" for size in ("small", "base", "base-short")),
    *(f"OpenGVLab/VideoMAEv2-{size}" for size in ("Base", "Large", "Huge", "giant")),
    *(f"facebook/vit-mae-{size}" for size in ("base", "large", "huge")),
)
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def shipped_names() -> list[str]:
    """Names of the models that come with the package, e.g. `["actions-tiny", ...]`."""
    return sorted(path.parent.name for path in _ASSETS_DIR.glob("*/config.json"))


def resolve_shipped(name: PathLike) -> Path | None:
    """Folder of a model that comes with the package, or None if there is none of that name."""
    return _ASSETS_DIR / os.fspath(name) if os.fspath(name) in shipped_names() else None


class AbsentError(SourceError):
    """A model is there, and none of the files of it that were asked for."""


def take_arguments(arguments: dict[str, Any]) -> HubArguments:
    """Take those of `fetch` out of the keywords of a `from_pretrained`, with what means nothing.

    Raises ConfigError for what transformers understands and this library does not.
    """
    drop_foreign(arguments, _FOREIGN)
    names = HubArguments.__annotations__
    return cast(HubArguments, {name: arguments.pop(name) for name in names if name in arguments})


def drop_foreign(arguments: dict[str, Any], foreign: Mapping[str, str | None]) -> None:
    """Take out arguments that mean nothing here; ConfigError where one asks for something.

    `foreign` has the names, and what to do instead: None where no value asks for anything.
    """
    for name, instead in foreign.items():
        value = arguments.pop(name, None)
        if value and instead:
            raise ConfigError(f"{name}={value!r} is not supported; {instead}")


def local_path(name: PathLike) -> Path:
    """A path with ~ written out; of a user that the system does not know, as it is."""
    with suppress(RuntimeError):
        return Path(name).expanduser()
    return Path(name)


def fetch(id_or_path: PathLike, *filenames: str, **where: Unpack[HubArguments]) -> Path:
    """Path of a model's file: in a local folder, in the package, or downloaded and cached.

    `id_or_path` is tried in this order: an existing folder, a shipped name ("actions-tiny"), a hub
    id ("MCG-NJU/videomae-base"). Of several file names, the first that is there counts.

    Raises AbsentError where there is no such file, and another SourceError for no such folder,
    repository or revision, no right to read it, or no connection.
    """
    for filename in filenames:
        _refuse_escape(filename)
    folder = local_path(id_or_path)
    if not folder.is_dir():
        folder = resolve_shipped(id_or_path) or folder
    if folder.is_dir():
        folder /= where.get("subfolder") or ""
        if not folder.is_dir():
            raise SourceError(f"{folder} does not exist; check subfolder=")
        for path in map(folder.joinpath, filenames):
            if path.is_file():
                return path
        there = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        raise AbsentError(f"{folder} has no {' or '.join(filenames)}; it holds: {there}")
    if folder.is_file():
        raise SourceError(
            f"{folder} is a file, and {filenames[0]} was looked for in it; give its folder, or "
            "pass config= where a weight file comes alone"
        )
    name, absent = os.fspath(id_or_path), []
    meant_as_path = isinstance(id_or_path, os.PathLike) or name.endswith(_WEIGHT_SUFFIXES)
    if meant_as_path or "/" not in name:  # no model of this kind is on the hub without an owner
        raise _no_such_place(name)
    if near := _near_folder(name, **where):
        raise SourceError(
            f"there is no folder {name}, but {near} is one; name it, or, for a model of the hub "
            "that is called so, start from another folder. The hub was not asked"
        )
    for filename in filenames:
        try:
            return _download(name, filename, **where)
        except AbsentError as error:
            absent.append(error)
    raise absent[0]


def find(id_or_path: PathLike, *filenames: str, **where: Unpack[HubArguments]) -> Path | None:
    """As `fetch`, with None in place of AbsentError."""
    try:
        return fetch(id_or_path, *filenames, **where)
    except AbsentError:
        return None


def _refuse_escape(filename: str) -> None:
    """File names also come from inside downloaded files, which could point anywhere on the disk."""
    for path in (PurePosixPath(filename), PureWindowsPath(filename)):
        if path.is_absolute() or path.drive or ".." in path.parts or not path.name:
            raise WeightsError(
                f"{filename!r} is not a file name inside the model's folder; it would lead out of "
                "it, so it was not opened"
            )


def _no_such_place(name: str) -> SourceError:
    return SourceError(
        f"{name} does not exist; expected a folder, a weight file, a hub id such as "
        f"'MCG-NJU/videomae-base', or one of {', '.join(shipped_names())}{_hint(name)}"
    )


def _near_folder(name: str, **where: Unpack[HubArguments]) -> Path | None:
    """A folder here that was probably meant by a name that is none: its path was mistyped."""
    owner, _, model = name.partition("/")
    with suppress(ValueError):  # no name that the hub can have
        if name in PUBLISHED or _is_cached(name, "config.json", **where):
            return None
    tops = [Path(owner)]
    if not tops[0].is_dir():
        tops = [Path(close) for close in get_close_matches(owner, _folders_in(Path()))]
    for top in tops:
        for close in get_close_matches(model, _folders_in(top), n=1, cutoff=0.7):
            return top / close
    return None


def _folders_in(folder: Path) -> list[str]:
    with suppress(OSError):
        return [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    return []


def _hint(name: str) -> str:
    known = (*shipped_names(), *PUBLISHED)
    return "" if name in known else nearest(name, known)


def _download(repo_id: str, filename: str, **where: Unpack[HubArguments]) -> Path:
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import get_token, hf_hub_download

    revision = where.get("revision") or "main"

    def get(where: HubArguments) -> Path:
        if not where.get("local_files_only"):
            _ask_once(repo_id, filename, **where)
        return Path(hf_hub_download(repo_id, filename, **where))

    try:
        try:
            # Whoever is logged in has a token, which no public model needs.
            token = where.get("token")
            return get({**where, "token": False if token is None else token})
        except hub_errors.RepositoryNotFoundError:  # gated, or seen by those alone who may
            if token is not None or get_token() is None:
                raise
            return get(where)
    except hub_errors.HFValidationError as error:  # before the hub is asked
        raise _no_such_place(repo_id) from error
    except hub_errors.GatedRepoError as error:
        raise SourceError(
            f"{repo_id} is open only to those whom its owner lets in; ask on its page, then log "
            f"in with `hf auth login` or pass token= ({error})"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise SourceError(
            f"the hub has no model {repo_id}, or it is private; check the name, or log in "
            f"with `hf auth login` or pass token=; there is no folder of that name either"
            f"{_hint(repo_id)} ({error})"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise SourceError(
            f"{repo_id} has no revision {revision!r}; pass a branch, a tag or a commit ({error})"
        ) from error
    except hub_errors.LocalEntryNotFoundError as error:
        # No connection, or none allowed; a subclass of EntryNotFoundError. Where the model is
        # cached, the file counts as absent; else asking on is of no use.
        absent, how = _is_cached(repo_id, "config.json", **where), "the hub could not be reached"
        if where.get("local_files_only"):
            absent, how = True, "local_files_only=True forbids to download it"
        raise (AbsentError if absent else SourceError)(
            f"{filename} of {repo_id} (revision {revision}) is not in the cache, and {how}; "
            f"connect once, or pass a folder that holds the files{_hint(repo_id)} ({error})"
        ) from error
    except hub_errors.EntryNotFoundError as error:
        raise AbsentError(f"{repo_id} (revision {revision}) has no {filename}") from error
    except OSError as error:  # huggingface_hub's own HTTP errors are OSErrors as well
        raise SourceError(f"{filename} of {repo_id} could not be downloaded: {error}") from error


def _ask_once(repo_id: str, filename: str, **where: Unpack[HubArguments]) -> None:
    """Raise the hub's error where a file that is not cached is not there, or no connection is.

    `hf_hub_download` tries again for half a minute before it says that there is no connection.
    """
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if _is_cached(repo_id, filename, **where):
        return
    url = hf_hub_url(
        repo_id, filename, subfolder=where.get("subfolder"), revision=where.get("revision")
    )
    not_there = (
        hub_errors.EntryNotFoundError,
        hub_errors.RepositoryNotFoundError,
        hub_errors.RevisionNotFoundError,
    )
    try:
        get_hf_file_metadata(url, token=where.get("token"))
    except not_there:
        raise
    except hub_errors.HfHubHTTPError:
        return  # an answer, though a bad one: worth to try again
    except Exception as error:  # of requests or httpx, by the release of huggingface_hub
        raise hub_errors.LocalEntryNotFoundError(str(error)) from error


def _is_cached(repo_id: str, filename: str, **where: Unpack[HubArguments]) -> bool:
    from huggingface_hub import try_to_load_from_cache

    path = PurePosixPath(where.get("subfolder") or "", filename).as_posix()
    return isinstance(
        try_to_load_from_cache(repo_id, path, where.get("cache_dir"), where.get("revision")), str
    )


def push_folder(
    folder: PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
    commit_description: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload all files of a folder to a hub model repository, made if missing: the commit's URL.

    `private=None` leaves an existing repository as it is, and makes a new one public.
    `revision` is the branch to write, made if missing; `create_pr` proposes the files to its owner.
    Raises WeightsError with the hub's reason.
    """
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub_errors

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=Path(folder),
            commit_message=commit_message or "Upload VideoMAE model",
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )
    except (OSError, hub_errors.HFValidationError) as error:
        raise WeightsError(
            f"{folder} could not be uploaded to {repo_id}; log in with `hf auth login` or pass "
            f"token= with the right to write ({error})"
        ) from error
    return str(commit.commit_url)


def check_push(arguments: dict[str, Any]) -> None:
    """Raise an error for keywords that `push_folder` does not take, before anything is saved."""
    foreign = {"use_auth_token": "pass token=", "tags": "write them into the README.md"}
    drop_foreign(arguments, foreign)
    signature(push_folder).bind("", "", **arguments)


def push_saved(save: Callable[[str], Any], repo_id: str, **push: Any) -> str:
    """Upload what `save(folder)` writes, and nothing else; `push` is for `push_folder`."""
    check_push(push)
    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        return push_folder(folder, repo_id, **push)


def plan_shards(
    tensors: Mapping[str, Any], filename_pattern: str, max_shard_size: int | str
) -> dict[str, list[str]]:
    """File name -> names of the tensors to go into it, so that no file is larger than told.

    `filename_pattern` has a `{suffix}`, which is empty where one file does. A size is in bytes, or
    a word such as "5GB"; ConfigError for others.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    try:
        plan = split_torch_state_dict_into_shards(
            dict(tensors), filename_pattern=filename_pattern, max_shard_size=max_shard_size
        )
    except ValueError as error:
        raise ConfigError(
            f"max_shard_size={max_shard_size!r} is no size; expected bytes, or words such as '5GB'"
        ) from error
    return plan.filename_to_tensors


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Write a file whole or not at all: write to the path given, it takes its name on success.

    The temporary file lies in the same folder, which is made if missing, and keeps the suffix.
    If the block raises, it is removed and what stood at `path` before stands untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are readable by their owner alone, and would stay so once renamed.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # writers with temporary files of their own left theirs, see above
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a crash after the rename may leave an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: PathLike) -> Iterator[Path]:
    """Fill a new folder whole or not at all: write into the one given, which is renamed on success.

    The temporary folder lies beside it. OSError where another one of that name is there by then.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for each in temporary.rglob("*"):
            if each.is_file():
                with each.open("rb") as file:
                    os.fsync(file.fileno())  # as in `atomic_path`
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(folder: PathLike) -> None:
    """ConfigError where a folder is no folder, or where none can be made or written there.

    For the start of long work, whose end would be lost; nothing is made.
    """
    folder = Path(folder)
    lowest = next((each for each in (folder, *folder.parents) if each.exists()), Path())
    if not lowest.is_dir() or not os.access(lowest, os.W_OK | os.X_OK):
        reason = "cannot be written to" if lowest.is_dir() else "is a file"
        raise ConfigError(
            f"cannot write to the output folder {folder}: {lowest} {reason}; name another one"
        )


def read_json(path: PathLike) -> dict[str, Any]:
    """The object in a JSON file; SourceError if it is missing, not JSON, or not an object."""
    try:
        value = parse_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SourceError(f"{path} does not exist") from error
    except ValueError as error:  # bad JSON and bad UTF-8 alike
        raise SourceError(f"{path} is not valid JSON: {error}; get the file anew") from error
    if not isinstance(value, dict):
        raise SourceError(f"{path} holds a {type(value).__name__}, expected an object {{...}}")
    return value


def write_json(path: PathLike, value: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    """Write an object as indented JSON, atomically."""
    write_text(path, to_json(value, indent=2, sort_keys=sort_keys) + "\n")


def write_text(path: PathLike, text: str) -> None:
    """Write text as UTF-8, atomically; bytes of names that are no UTF-8 as `as_text` has them."""
    with atomic_path(path) as temporary:
        temporary.write_text(as_text(text), encoding="utf-8")
