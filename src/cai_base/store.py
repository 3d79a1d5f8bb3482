"""A run's directory: a unit of work is stored whole or not at all, and what is stored is checked when it is read again.

`manifest.json` says how far each piece of work has come and what every file held at that moment (bytes and SHA-256). A
unit is stored by writing its files and then replacing the manifest in one rename; until then nothing of it counts. On
resume, what the manifest does not vouch for is dropped (a torn tail of an appended file) or overwritten, and a file
that differs from what the manifest vouches for stops the run.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cai_base.errors import UserError

MANIFEST = "manifest.json"

Record = dict[str, Any]


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either what it held before or all of it, whenever the machine stops."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _fsync(path.parent)


def to_json(value: Any) -> bytes:
    """One JSON text, readable, the same bytes for the same value. Not-a-number is an error, never a value."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_lines(records: Iterable[Record]) -> bytes:
    """Records as JSON lines."""
    return "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in records).encode()


def read_lines(path: Path) -> Iterator[Record]:
    """The records of a JSON-lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def refuse_existing(directory: Path) -> None:
    """Raise UserError if a run cannot begin in `directory` because there is something, or no such name can be."""
    try:
        exists = directory.exists()
    except OSError as error:
        raise UserError(f"--out {directory}: cannot be made ({error.strerror}); give a writable place") from error
    if exists:
        raise UserError(
            f"--out {directory}: exists already; give a new directory, or continue it: cai-base resume {directory}"
        )


class Run:
    """One run's directory. Paths are relative to it, with forward slashes."""

    def __init__(self, directory: Path, manifest: Record) -> None:
        self.directory = directory
        self._manifest = manifest
        self._watched: dict[str, Callable[[], Record]] = {}

    @classmethod
    def create(
        cls, directory: Path, config: Record, files: Mapping[str, bytes], found: Mapping[str, Record] | None = None
    ) -> "Run":
        """Begin a run that has `config` and the given files, and in which these things were `found` (see `watch`).

        It is made under another name and renamed, so that a directory of this name is a run from its first moment on:
        one without a manifest could be neither resumed nor made again.

        Raises:
            UserError: the directory exists already, or cannot be made.
        """
        refuse_existing(directory)
        manifest: Record = {"schema": 1, "config": config, "progress": {}, "files": {}, "usage": {}}
        manifest["found"] = dict(found or {})
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".cai-base-", dir=directory.parent) as folder:
                begun = Path(folder) / "run"
                cls(begun, manifest).commit(write={"config.json": to_json(config), **files})
                begun.rename(directory)
            _fsync(directory.parent)
        except OSError as error:
            raise UserError(f"--out {directory}: cannot be made ({error.strerror}); give a writable place") from error
        return cls(directory, manifest)

    @classmethod
    def open(cls, directory: Path) -> "Run":
        """Open a run to continue or read it. Nothing is written: another process may be working on it.

        Raises:
            UserError: it is no run, or its configuration or a stored file was changed since it was written.
        """
        try:
            manifest = json.loads((directory / MANIFEST).read_bytes())
        except OSError:
            raise UserError(
                f"{directory}: not a run (it has no {MANIFEST}); give a directory that `run` made"
            ) from None
        except json.JSONDecodeError as error:
            raise UserError(f"{directory / MANIFEST}:{error.lineno}: not JSON ({error.msg})") from error
        run = cls(directory, manifest)
        run._refuse_changed_config()
        for name, known in manifest["files"].items():
            run._verify(name, known)
        return run

    def _refuse_changed_config(self) -> None:
        file = self.directory / "config.json"
        try:
            config = json.loads(file.read_bytes())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{file}: cannot be read ({error}); restore it, or begin a new run") from error
        for field, was, now in _differences(self._manifest["config"], config):
            raise UserError(
                f"{file}: {field} was {was} when this run began and is {now} now; "
                "a run keeps its configuration: put it back, or begin a new run"
            )

    def _verify(self, name: str, known: Record) -> None:
        path = self.directory / name
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise UserError(f"{path}: was stored by this run and is missing; restore it, or begin a new run") from None
        torn = known["appended"] and size > known["bytes"]  # the next append drops the tail
        if (size != known["bytes"] and not torn) or _sha256(path, known["bytes"]) != known["sha256"]:
            raise UserError(f"{path}: differs from what this run stored; restore it, or begin a new run")

    @property
    def config(self) -> Record:
        """The configuration this run began with."""
        config: Record = self._manifest["config"]
        return config

    @property
    def usage(self) -> Record:
        """Time and tokens so far, for `usage.json`; kept with the next `commit`."""
        usage: Record = self._manifest["usage"]
        return usage

    def found(self, name: str) -> Record | None:
        """What was found under this name when the last unit was stored."""
        record: Record | None = self._manifest.get("found", {}).get(name)
        return record

    def watch(self, name: str, look: Callable[[], Record]) -> None:
        """Store with every unit from now on what `look` finds then: a resumed run needs what held at its last unit."""
        self._watched[name] = look

    def progress(self, work: str) -> int:
        """How many units (or steps) of `work` are stored."""
        return int(self._manifest["progress"].get(work, 0))

    def commit(
        self,
        work: str | None = None,
        count: int = 0,
        *,
        write: Mapping[str, bytes] | None = None,
        append: Mapping[str, bytes] | None = None,
        adopt: Iterable[str] = (),
        forget: Iterable[str] = (),
    ) -> None:
        """Store one unit: afterwards `progress(work)` is `count`.

        Args:
            work: what was done; None stores files without progress.
            count: how far `work` has come with this unit.
            write: whole files.
            append: records to add to the ends of files.
            adopt: directories that something else has just written, to be vouched for from now on.
            forget: directories to delete once the unit is stored.
        """
        files = self._manifest["files"]
        for name, content in (write or {}).items():
            write_atomic(self.directory / name, content)
            files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "appended": False}
        for name, content in (append or {}).items():
            self._append(name, content)
        for name in adopt:
            for path in sorted(p for p in (self.directory / name).rglob("*") if p.is_file()):
                relative = path.relative_to(self.directory).as_posix()
                _fsync(path)
                _fsync(path.parent)
                size = path.stat().st_size
                files[relative] = {"bytes": size, "sha256": _sha256(path, size), "appended": False}
        gone = tuple(f"{name}/" for name in forget)
        for name in [name for name in files if name.startswith(gone)] if gone else []:
            del files[name]
        if work is not None:
            self._manifest["progress"][work] = count
        for name, look in self._watched.items():
            self._manifest.setdefault("found", {})[name] = look()
        write_atomic(self.directory / MANIFEST, to_json(self._manifest))
        for name in gone:
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def _append(self, name: str, content: bytes) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        known = self._manifest["files"].get(name, {"bytes": 0})
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(known["bytes"])  # a unit that was interrupted may have left a tail
            file.seek(known["bytes"])
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._manifest["files"][name] = {
            "bytes": known["bytes"] + len(content),
            "sha256": _sha256(path, known["bytes"] + len(content)),
            "appended": True,
        }

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one process that works on this run.

        Raises:
            UserError: another process does.
        """
        handle = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UserError(f"{self.directory}: another process works on this run; wait for it, or stop it") from None
        try:
            yield
        finally:
            os.close(handle)

    def note(self, **facts: Any) -> None:
        """Add facts about this process (host, times, versions) to the manifest; results never depend on them."""
        self._manifest.setdefault("environment", {}).update(facts)

    def lines(self, name: str) -> list[Record]:
        """The records of one stored file; none if it is not there."""
        known = self._manifest["files"].get(name)
        if known is None:
            return []
        with (self.directory / name).open("rb") as file:
            return [json.loads(line) for line in file.read(known["bytes"]).splitlines()]


def _sha256(path: Path, length: int) -> str:
    """SHA-256 of the first `length` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0 and (part := file.read(min(length, 1 << 20))):
            digest.update(part)
            length -= len(part)
    return digest.hexdigest()


def _fsync(path: Path) -> None:
    """Have a file, or a directory's list of names, reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _differences(was: Any, now: Any, field: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each leaf that differs between two JSON values: its dotted name, before, after."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            name = f"{field}.{key}" if field else key
            yield from _differences(was.get(key, "absent"), now.get(key, "absent"), name)
    elif was != now:
        yield field, json.dumps(was), json.dumps(now)
