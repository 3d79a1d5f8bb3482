"""Facts about the process for `manifest.json`: versions, commit, device, host and date. No result depends on them."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel

from cai_base import __version__
from cai_base.reading import RESTORE, build
from cai_base.store import MANIFEST, JsonObject, Run

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy")
"""The libraries on which a run's figures may depend."""


def session_facts(device: str) -> JsonObject:
    """The facts about this process.

    Args:
        device: the engine's device.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "commit": commit(),
        "device": device,
        "platform": platform.platform(),
        "host": platform.node(),
    }


class Session(BaseModel):
    """Of the facts about a process, those that a later one compares with its own.

    Attributes:
        versions: by library.
    """

    versions: dict[str, str] = {}
    commit: str | None = None


def last_session(run: Run) -> Session:
    """The facts about the last process that worked on a run; without any if the run has none.

    Raises:
        UserError: they were changed, and are no such facts.
    """
    where = f"{run.directory / MANIFEST}: sessions"
    return build(Session, run.sessions[-1], where, remedy=RESTORE) if run.sessions else Session()


def versions() -> dict[str, str]:
    """The versions of cai-base, Python and the libraries that figures may depend on."""
    own = {"cai-base": __version__, "python": platform.python_version()}
    return own | {name: metadata.version(name) for name in LIBRARIES}


def commit() -> str | None:
    """The git commit of this package's source, with `-changed` if its files differ from it; None if it is not in git.

    For a package that pip installed from a repository, the commit is in its metadata (PEP 610).
    """
    package = Path(__file__).parents[1]
    try:
        described = subprocess.run(
            ["git", "-C", str(package), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=-changed"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        tracked = subprocess.run(
            ["git", "-C", str(package), "ls-files", "--error-unmatch", "__init__.py"],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # no git here
        return _installed_commit()
    # An environment inside another repository is not a checkout of this package.
    in_checkout = described.returncode == 0 and tracked.returncode == 0
    return described.stdout.strip() if in_checkout else _installed_commit()


def _installed_commit() -> str | None:
    try:
        origin = metadata.distribution("cai-base").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    stored = json.loads(origin) if origin else {}
    commit_id = stored.get("vcs_info", {}).get("commit_id")
    return None if commit_id is None else str(commit_id)
