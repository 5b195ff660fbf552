"""Which code made a run: its commit where it is a checkout, and a hash of its files.

All of it is read from files. The program git would run what the settings of a repository name, such
as core.fsmonitor, filters and hooks, and a run may be started in a folder of a stranger.
"""

import hashlib
import re
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def git_revision(package: Path = _PACKAGE) -> str | None:
    """The commit of the checkout `package` is in; None where it was installed by other means.

    That of the folder above `src` alone: the repository that an environment lies in is another's.
    """
    git_dir = package.parents[1] / ".git"
    try:
        if package.parent.name != "src":
            return None
        if git_dir.is_file():  # of a worktree
            git_dir = git_dir.parent / git_dir.read_text().removeprefix("gitdir:").strip()
        link = git_dir / "commondir"
        shared = git_dir / link.read_text().strip() if link.is_file() else git_dir
        head = (git_dir / "HEAD").read_text().strip()
        if head.startswith("ref:"):
            name = head.removeprefix("ref:").strip()
            if (shared / name).is_file():
                head = (shared / name).read_text().strip()
            else:
                rows = map(str.split, (shared / "packed-refs").read_text().splitlines())
                head = next((row[0] for row in rows if row[1:] == [name]), "")
    except (OSError, ValueError):
        return None
    return head if re.fullmatch("[0-9a-f]{40,64}", head) else None


def source_digest(package: Path = _PACKAGE) -> str:
    """A hash over the code, 12 hex digits: a commit does not tell what was changed after it."""
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]
