"""The recipes of CONTRIBUTING.md: each is made as an edit of a copy of the package, which then runs to the end."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cai_base
from cai_base import embedded

PACKAGE = Path(cai_base.__file__).parent
CONTRIBUTING = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
TINY = (
    "--seeds 1 --threads 1 --sft.steps 1 --sft.batch-size 1 --revision.prompts 4 --revision.rounds 1 --dpo.steps 2 "
    "--dpo.batch-size 1 --dpo.held-out 0 --revision.response-tokens 40 --revision.critique-tokens 12 "
    "--evaluation.response-tokens 24 --lora.rank 2 --accept rate,power,judge,base"
).split()


@dataclass(frozen=True)
class Recipe:
    """A copy of the package with a change made to it.

    Attributes:
        files: the files that the change touched or added, relative to the package.
    """

    folder: Path
    files: tuple[str, ...]

    def cai_base(self, *arguments: str, code: int = 0) -> str:
        """What a command prints, run on the copy."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src"), "OPENAI_API_KEY": "none"}
        command = [sys.executable, "-m", "cai_base", *arguments]
        ended = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=500
        )
        assert ended.returncode == code, f"{' '.join(arguments)}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def cai_base_error(self, *arguments: str) -> str:
        """The message of a command that refuses its input, run on the copy."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src")}
        command = [sys.executable, "-m", "cai_base", *arguments]
        ended = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=500
        )
        assert ended.returncode == 2, ended.stdout + ended.stderr
        return ended.stderr

    def run(self, *flags: str) -> dict[str, Any]:
        """The results of a tiny run with these flags, in the folder `run`."""
        prompts = ["--evaluation.prompts", str(self.folder / "prompts.jsonl")]
        table = self.cai_base("run", *TINY, *prompts, *flags, "--out", "run")
        (self.folder / "table.txt").write_text(table, encoding="utf-8")
        results: dict[str, Any] = json.loads((self.folder / "run/results.json").read_bytes())
        return results

    @property
    def table(self) -> str:
        """What the run printed at its end."""
        return (self.folder / "table.txt").read_text(encoding="utf-8")

    def text(self, name: str) -> str:
        """A file of the run."""
        return (self.folder / "run" / name).read_text(encoding="utf-8")


class Change:
    """Makes a recipe: edits of files of the package, by text that stands there once, and new files."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._files = folder, list[str]()
        source = folder / "src" / "cai_base"
        ignored = shutil.ignore_patterns("__pycache__", "weights", "sibling")
        shutil.copytree(PACKAGE, source, ignore=ignored)
        for name in ("weights", "sibling"):
            (source / "organism" / name).symlink_to(embedded.weights().parent / name)
        every = (PACKAGE / "data/world/test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "prompts.jsonl").write_text("".join(every[::12]), encoding="utf-8")

    def make(self, edits: Sequence[tuple[str, str, str]], new: Mapping[str, str] | None = None) -> Recipe:
        """Apply the edits.

        Args:
            edits: file, the text after which something is added, what is added. Each is quoted in CONTRIBUTING.md.
            new: files that are added, with their content.
        """
        for file, anchor, added in edits:
            path = self._folder / "src" / "cai_base" / file
            text = path.read_text(encoding="utf-8")
            assert text.count(anchor) == 1, f"{file} has {anchor!r} {text.count(anchor)} times"
            path.write_text(text.replace(anchor, anchor + added), encoding="utf-8")
            self._files.append(file)
            assert_in_contributing(added)
        for file, content in (new or {}).items():
            path = self._folder / "src" / "cai_base" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            self._files.append(file)
            assert_in_contributing(content)
        return Recipe(self._folder, tuple(dict.fromkeys(self._files)))


def assert_in_contributing(code: str) -> None:
    """The page shows the very lines that the test makes."""
    for line in code.splitlines():
        assert not line.strip() or line.strip() in CONTRIBUTING, f"CONTRIBUTING.md does not show: {line.strip()}"
