"""A run's directory: each unit of work is stored atomically, and stored files are verified when they are read again.

`manifest.json` has the progress of each piece of work, and the length and SHA-256 of every file at that time. A unit is
stored by writing its files and then replacing the manifest in one rename; before that, none of it counts. On resume,
content that is not in the manifest is dropped (a torn tail of an appended file) or overwritten. A file that differs
from the manifest stops the run.
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
from typing import BinaryIO, cast

from cai_base.errors import ChangedFileError, UserError
from cai_base.reading import build, check_file, check_inside, decoded, parse_json, read_bytes
from cai_base.store.files import JsonObject as JsonObject
from cai_base.store.files import differences, digest_of, fsync, sha256
from cai_base.store.files import open_to_append as open_to_append
from cai_base.store.files import read_lines as read_lines
from cai_base.store.files import refuse_links as refuse_links
from cai_base.store.files import scratch as scratch
from cai_base.store.files import to_json as to_json
from cai_base.store.files import to_lines as to_lines
from cai_base.store.files import write_atomic as write_atomic
from cai_base.store.manifest import MANIFEST as MANIFEST
from cai_base.store.manifest import Manifest, StoredFile
from cai_base.store.places import check_folder_to_write as check_folder_to_write
from cai_base.store.places import check_new_file as check_new_file
from cai_base.store.places import make_folder as make_folder
from cai_base.store.places import refuse_existing as refuse_existing
from cai_base.store.places import refuse_misspelt as refuse_misspelt
from cai_base.store.places import refuse_no_run as refuse_no_run
from cai_base.store.places import refuse_others as refuse_others

CONFIG = "config.json"
TRACKERS = "trackers"
"""The folder of the files of trackers, which may be links: W&B puts its log there. No command follows one."""
TAIL = 1 << 16
"""Bytes that are read at once from a file's end."""
REMEDY = "restore it, or start a new run"
ACCEPT = "--accept-changed"
"""The flag of some commands that read a run: a file is taken as it is, though the run stored it otherwise."""


class Run:
    """One run's directory. Paths are relative to it, with forward slashes."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self._manifest = manifest
        self._recorders: dict[str, Callable[[], JsonObject]] = {}
        self._digests: dict[str, tuple[str, hashlib._Hash]] = {}

    @classmethod
    def create(
        cls,
        directory: Path,
        config: JsonObject,
        files: Mapping[str, bytes],
        records: Mapping[str, JsonObject] | None = None,
    ) -> "Run":
        """Create a run with this configuration, these files, and these records (see `recorded`).

        It is created under another name and then renamed, so that a directory of this name is always a complete run:
        without a manifest it could be neither resumed nor created again.

        Raises:
            UserError: the directory already exists, or cannot be created.
        """
        refuse_existing(directory)
        manifest = Manifest(schema=1, config=config, progress={}, files={}, usage={}, found=dict(records or {}))
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".cai-base-", dir=directory.parent) as folder:
                new = Path(folder) / "run"
                cls(new, manifest).commit(write={CONFIG: to_json(config), **files})
                new.rename(directory)
            fsync(directory.parent)
        except OSError as error:
            raise UserError(
                f"--out {directory}: cannot be created ({error.strerror}); give a writable location"
            ) from error
        return cls(directory, manifest)

    @classmethod
    def open(cls, directory: Path, *, computed: tuple[str, ...] = ()) -> "Run":
        """Open a run to continue or read it. Nothing is written: another process may be working on it.

        Args:
            computed: as for `verify`.

        Raises:
            UserError: it is not a run, or its configuration or a stored file was changed since it was written.
        """
        run = cls.watch(directory)
        run.verify(computed=computed)
        return run

    @classmethod
    def watch(cls, directory: Path) -> "Run":
        """Open a run that another process may be writing, to read what it has stored so far.

        Only the manifest is read. No file is verified, because that takes seconds and this may be called every second;
        but none leads out of the directory, and none is a FIFO, a socket or a device.

        Raises:
            UserError: it is not a run, or has such a file.
        """
        path = directory / MANIFEST
        refuse_no_run(directory)
        check_inside(directory, TRACKERS)
        return cls(directory, build(Manifest, _json(path), str(path), remedy=REMEDY))

    def verify(self, *, computed: tuple[str, ...] = ()) -> None:
        """Compare every stored file with the manifest.

        Args:
            computed: files that the caller computes again from the others: they are not compared, since a process that
                was killed between them and the manifest left another content.

        Raises:
            UserError: the configuration or a file was changed since it was written.
        """
        self._refuse_changed_config()
        for name, file in self._manifest.files.items():
            if name not in computed:
                self._verify(name, file)

    def _refuse_changed_config(self) -> None:
        path = self.directory / CONFIG
        config = _json(path)
        try:
            changes = list(differences(self._manifest.config, config))
        except RecursionError:
            raise UserError(f"{path}: nested too deeply to be read; {REMEDY}") from None
        for field, was, now in changes:
            raise UserError(
                f"{path}: {field or 'the file'} was {was} when this run began and is {now} now; "
                "a run keeps its configuration: restore the old value, or start a new run"
            )

    def _verify(self, name: str, file: StoredFile) -> None:
        if self._differs(name, file):
            raise ChangedFileError(self.directory, name, REMEDY)

    def _differs(self, name: str, file: StoredFile) -> bool:
        path = self.directory / name
        try:
            if not path.is_file():
                raise FileNotFoundError
            size = path.stat().st_size
            torn = file.appended and size > file.bytes  # the next append drops the tail
            return (size != file.bytes and not torn) or sha256(path, file.bytes) != file.sha256
        except FileNotFoundError:
            raise UserError(f"{path}: was stored by this run and is missing; {REMEDY}") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from None

    def accept(self, name: str) -> bool:
        """Take a stored file as it is now, if it was changed; the next `commit` stores that.

        Returns:
            Whether it was changed.

        Raises:
            UserError: the run stored no such file, it is missing, or it is the configuration, which a run keeps.
        """
        stored = self._manifest.files.get(name)
        if stored is None:
            raise UserError(
                f"{ACCEPT} {name}: {self.directory} stored no such file; give its path inside the run, such as "
                f"{next(iter(self._manifest.files), CONFIG)}"
            )
        if name == CONFIG:
            raise UserError(
                f"{ACCEPT} {name}: a run keeps its configuration: restore the old value, or start a new run"
            )
        if not self._differs(name, stored):
            return False
        path = self.directory / name
        size = path.stat().st_size
        self._manifest.accepted.setdefault(name, stored)
        self._manifest.files[name] = StoredFile(bytes=size, sha256=sha256(path, size), appended=stored.appended)
        return True

    @property
    def accepted(self) -> tuple[str, ...]:
        """The files that were changed after the run stored them, and are taken as they are."""
        return tuple(sorted(self._manifest.accepted))

    def vouched(self, name: str, remedy: str = "remove it") -> int:
        """How many bytes of a file the manifest vouches for; 0 of one that is not there.

        Args:
            remedy: what to do with one that the run did not store.

        Raises:
            UserError: the file is there, and the run did not store it.
        """
        stored = self._manifest.files.get(name)
        if stored is None and (self.directory / name).exists():
            raise UserError(f"{self.directory / name}: this run did not store it; {remedy}")
        return 0 if stored is None else stored.bytes

    def check(self, name: str) -> None:
        """Compare one file with the manifest.

        Raises:
            UserError: the run did not store it, or it was changed.
        """
        if self.vouched(name):
            self._verify(name, self._manifest.files[name])

    @property
    def config(self) -> JsonObject:
        """The run's configuration at its start."""
        return self._manifest.config

    @property
    def usage(self) -> dict[str, dict[str, float]]:
        """Seconds by phase, spent so far and as forecast, for `usage.json`; stored with the next `commit`."""
        return self._manifest.usage

    def recorded(self, name: str) -> JsonObject | None:
        """The record of this name as of the last commit; None if there is none."""
        return self._manifest.records.get(name)

    def record_on_commit(self, name: str, record: Callable[[], JsonObject]) -> None:
        """From now on, store the return value of `record` at every commit, for `recorded` in a resumed run."""
        self._recorders[name] = record

    def progress(self, work: str) -> int:
        """The number of stored units (or steps) of `work`."""
        return self._manifest.progress.get(work, 0)

    def commit(
        self,
        work: str | None = None,
        count: int = 0,
        *,
        write: Mapping[str, bytes] | None = None,
        append: Mapping[str, bytes] | None = None,
        adopt: Iterable[str] = (),
        forget: Iterable[str] = (),
        complete: Iterable[str] = (),
    ) -> None:
        """Store one unit: afterwards `progress(work)` is `count`.

        Args:
            work: the piece of work; None stores files without progress.
            count: the number of units (or steps) of `work` including this unit.
            write: complete files.
            append: bytes to append to files.
            adopt: directories that were written by other code, to add to the manifest.
            forget: directories to delete after the unit is stored.
            complete: files to which no more is appended, so that a longer one has been changed.
        """
        files = self._manifest.files
        for name, content in (write or {}).items():
            write_atomic(self.directory / name, content)
            files[name] = StoredFile(bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), appended=False)
        for name, content in (append or {}).items():
            self._append(name, content)
        for name in adopt:
            for path in sorted(p for p in (self.directory / name).rglob("*") if p.is_file()):
                relative = path.relative_to(self.directory).as_posix()
                fsync(path)
                fsync(path.parent)
                size = path.stat().st_size
                files[relative] = StoredFile(bytes=size, sha256=sha256(path, size), appended=False)
        folders = tuple(f"{name}/" for name in forget)
        for name in [name for name in files if name.startswith(folders)] if folders else []:
            del files[name]
        for name in complete:
            files[name] = files[name].model_copy(update={"appended": False})
        if work is not None:
            self._manifest.progress[work] = count
        for name, record in self._recorders.items():
            self._manifest.records[name] = record()
        write_atomic(self.directory / MANIFEST, to_json(self._manifest.dump()))
        for name in folders:
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def _append(self, name: str, content: bytes) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = self._manifest.files.get(name)
        start = stored.bytes if stored else 0
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(start)  # a unit that was interrupted may have left a tail
            file.seek(start)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # The digest of what this process has appended so far goes on: a file is not read again for each unit.
        known, digest = self._digests.get(name, ("", hashlib.sha256()))
        if stored is None or known != stored.sha256:
            digest = digest_of(path, start)
        digest.update(content)
        file_now = StoredFile(bytes=start + len(content), sha256=digest.hexdigest(), appended=True)
        self._manifest.files[name], self._digests[name] = file_now, (file_now.sha256, digest)

    @property
    def works(self) -> Mapping[str, int]:
        """The progress of every piece of work, by its name."""
        return dict(self._manifest.progress)

    def copy_from(self, donor: "Run", works: Mapping[str, int], files: Iterable[str]) -> None:
        """Copy pieces of work of another run into this run: their files, byte for byte, and their progress.

        Args:
            works: pieces of work that this run has not begun.
            files: all files of these pieces of work.

        Raises:
            UserError: a file differs from the donor's manifest.
        """
        for name in files:
            stored = donor._manifest.files[name]
            donor._verify(name, stored)
            with (donor.directory / name).open("rb") as file:
                write_atomic(self.directory / name, file.read(stored.bytes))
            self._verify(name, stored)
            appended = stored.appended or name.endswith(".jsonl")  # here more may follow what a finished run has
            self._manifest.files[name] = stored.model_copy(update={"appended": appended})
        self._manifest.progress.update(works)
        self.commit()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context in which this process has the run's lock.

        Raises:
            UserError: another process has the lock.
        """
        handle = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UserError(
                f"{self.directory}: another process is working on this run; wait for it, or stop it"
            ) from None
        try:
            yield
        finally:
            os.close(handle)

    def record_session(self, facts: JsonObject) -> None:
        """Add facts about this process (versions, host, date) to the manifest; results never depend on them."""
        self._manifest.environment.setdefault("sessions", []).append(facts)

    @property
    def sessions(self) -> list[JsonObject]:
        """Facts about every process that worked on this run, in order."""
        return cast(list[JsonObject], self._manifest.environment.get("sessions", []))

    @property
    def files(self) -> tuple[str, ...]:
        """The files in the manifest."""
        return tuple(self._manifest.files)

    def stored(self, names: Iterable[str]) -> tuple[tuple[str, int, str], ...]:
        """Those of these files that the run has stored and that are not empty: name, bytes and hash."""
        files = ((name, self._manifest.files.get(name)) for name in names)
        return tuple((name, file.bytes, file.sha256) for name, file in files if file is not None and file.bytes)

    def lines(self, name: str) -> list[JsonObject]:
        """The records of a stored JSON-lines file; none if the file does not exist.

        Raises:
            UserError: it is missing or cannot be read, or a line is not a JSON object.
        """
        return list(self.each_line(name))

    def began(self, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """Name and hash of these files as the run stored them, whatever change of them was accepted since."""
        files = {**self._manifest.files, **self._manifest.accepted}
        return tuple((name, files[name].sha256) for name in names if name in files)

    def each_line(self, name: str) -> Iterator[JsonObject]:
        """As `lines`, one at a time: a file of a large run may not fit into memory."""
        stored = self._manifest.files.get(name)
        if stored is None:
            return
        path, left, number = self.directory / name, stored.bytes, 0
        with _opened(path) as file:
            while line := file.readline(left):
                left, number = left - len(line), number + 1
                yield _record(line, f"{path}:{number}")

    def last_line(self, name: str) -> JsonObject | None:
        """The last record of a stored JSON-lines file, of which no more is read; None if there is none.

        Raises:
            UserError: the file is missing or cannot be read, or the line is not a JSON object.
        """
        stored = self._manifest.files.get(name)
        if stored is None:
            return None
        path, tail, start = self.directory / name, b"", stored.bytes
        with _opened(path) as file:
            while start > 0 and tail.rstrip(b"\n").count(b"\n") == 0:
                step = min(start, TAIL)
                start -= step
                file.seek(start)
                tail = file.read(step) + tail
        lines = tail.rstrip(b"\n").splitlines()
        return _record(lines[-1], f"{path}: its last line") if lines else None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A stored file, to read; UserError if it is missing or no regular file."""
    try:
        check_file(path, "a file of a run", None)
    except UserError as error:
        raise UserError(f"{error}; {REMEDY}") from None
    with path.open("rb") as file:
        yield file


def _record(line: bytes, where: str) -> JsonObject:
    """One line of a JSON-lines file; UserError if it is not a JSON object."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{where}: not a JSON object; {REMEDY}")
    return record


def _json(path: Path) -> object:
    """The value in a JSON file of a run.

    Raises:
        UserError: it cannot be read, or is not JSON.
    """
    try:
        return parse_json(path, decoded(path, read_bytes(path, "a file of a run"), "a file of a run"))
    except UserError as error:
        raise UserError(f"{error}; {REMEDY}") from None
