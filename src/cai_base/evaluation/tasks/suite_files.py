"""Where the files of a suite come from: the user's disk, or the place where the suite's authors publish them."""

import hashlib
import tomllib
from importlib import resources
from pathlib import Path
from textwrap import shorten
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

from pydantic import Field

from cai_base.cache import cache_folder
from cai_base.errors import UserError
from cai_base.evaluation.tasks.suite_forms import FORMS, JAILBREAKBENCH
from cai_base.reading import LARGEST, Entry, listed, suggestion
from cai_base.store import write_atomic

TIMEOUT = 60.0
"""A download ends with an error after this many seconds without a byte."""


HALVES = ("harmful", "benign")
"""The halves of JailbreakBench, each a file."""

STYLE = "style"
"""The suite of the thirteen styles, for the arms of a run."""


class Published(Entry):
    """A published suite, and where its authors keep it: `files` of a data set on the `hub`, or a `url`.

    Attributes:
        sha256: of the file at the `url`, where this version knows it; empty otherwise.
    """

    title: str
    paper: str
    hub: str | None = None
    files: list[str] = Field(default_factory=list)
    url: str = ""
    sha256: str = ""


def published() -> dict[str, Published]:
    """Every published suite by its name."""
    table = tomllib.loads((resources.files("cai_base") / "data" / "suites.toml").read_text(encoding="utf-8"))
    return {name: Published.model_validate(about) for name, about in table.items()}


def suite_names() -> list[str]:
    """The names that `--suite` takes alone: published suites, the halves of JailbreakBench, and the styles of a run."""
    names: list[str] = []
    for name in published():
        names += [name, *(f"{name}-{half}" for half in HALVES)] if name == JAILBREAKBENCH else [name]
    return [*names, STYLE]


def formats_only() -> list[str]:
    """The names that `--suite` takes only with a file, as NAME:FILE: formats that no published suite is named after."""
    return [name for name in FORMS if name not in suite_names()]


def locate(suite: str) -> tuple[str | None, list[Path]]:
    """The suite that `--suite` names: its name, None where the file must tell it, and its files.

    Raises:
        UserError: there is neither such a file nor such a suite, or it cannot be downloaded.
    """
    known = published()
    name, _, path = suite.partition(":")
    if path and name in {*known, *FORMS}:
        return name, [Path(path)]
    if suite in known:
        return suite, _downloaded(suite, known[suite])
    for half in HALVES:
        if suite == f"{JAILBREAKBENCH}-{half}":
            about = known[JAILBREAKBENCH]
            files = [file for file in about.files if half in file]
            return suite, _downloaded(suite, about.model_copy(update={"files": files}))
    if not Path(suite).exists():
        if suite in formats_only():
            raise UserError(f"--suite {suite}: is the format of several files; give one as {suite}:FILE")
        names = suite_names()
        remedy = suggestion(suite, names) or (
            f"give the path of a CSV or JSONL file with the fields text and kind, or one of {listed(names)}"
        )
        raise UserError(f"--suite {suite}: no such file; {remedy}")
    return None, [Path(suite)]


def _downloaded(name: str, about: Published) -> list[Path]:
    try:
        if about.hub is not None:
            from huggingface_hub.utils import logging

            logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # the message below says it once
            return [_from_hub(about.hub, file) for file in about.files]
        return [_cached(name, about)]
    except Exception as error:  # the hub's client raises nearly everything, as does a network that is not there
        place = about.url or f"https://huggingface.co/datasets/{about.hub}"
        reason = shorten(str(error), 200, placeholder=" …")
        raise UserError(
            f"--suite {name}: cannot be downloaded ({reason}); get it from {place} and give --suite {name}:FILE"
        ) from error


def _from_hub(repository: str, file: str) -> Path:
    """A file of a data set on the hub, downloaded once.

    Raises:
        ValueError: it is too large.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    known = try_to_load_from_cache(repository, file, repo_type="dataset")
    if isinstance(known, str):
        return Path(known)
    facts = hf_hub_download(repository, file, repo_type="dataset", dry_run=True)
    if (facts.file_size or 0) > LARGEST:
        raise ValueError(f"{file} has {facts.file_size:,} bytes and at most {LARGEST:,} are downloaded")
    # The commit whose size was said, and no newer one.
    return Path(hf_hub_download(repository, file, repo_type="dataset", revision=facts.commit_hash))


def _cached(name: str, about: Published) -> Path:
    """The file at the suite's URL, downloaded once.

    Raises:
        ValueError: it is too large, or is not the file that this version knows.
    """
    path = cache_folder() / "suites" / name / about.url.rpartition("/")[2]
    if not path.exists():
        with open_url(about.url, TIMEOUT) as answer:
            content = answer.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        write_atomic(path, content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if about.sha256 and digest != about.sha256:
        path.unlink()
        raise ValueError(f"its SHA-256 is {digest} and not {about.sha256}: it was changed since this version")
    return path


class _SameHost(HTTPRedirectHandler):
    """Follows a redirect within the host alone, and only over HTTPS."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """As in the base class."""
        if urlsplit(newurl)[:2] != ("https", urlsplit(req.full_url).netloc):
            raise HTTPError(req.full_url, code, f"redirected to {newurl}, another host", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(url: str, timeout: float) -> Any:
    """The response at a URL."""
    return build_opener(_SameHost).open(url, timeout=timeout)
