"""The recipes of CONTRIBUTING.md, applied to a copy of the package, which then makes a complete run."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cai_base
from cai_base import embedded

PACKAGE = Path(cai_base.__file__).parent
CONTRIBUTING = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
TINY = (
    "--seeds 1 --threads 1 --sft.steps 1 --sft.batch-size 1 --revision.prompts 4 --revision.rounds 1 --dpo.steps 2 "
    "--dpo.batch-size 1 --dpo.held-out 0 --revision.response-tokens 40 --revision.critique-tokens 12 "
    "--evaluation.response-tokens 24 --lora.rank 2 --accept rate,power,judge,base"
).split()
PAID_JUDGE = "--judge tinker:judge --price 1,1,1".split()


class Copy:
    """A copy of the package, with changes made to it, and the tiny run that is made with it.

    Attributes:
        folder: where commands run; the run is its folder `run`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = folder / "src" / "cai_base"
        ignored = shutil.ignore_patterns("__pycache__", "weights", "sibling")
        shutil.copytree(PACKAGE, source, ignore=ignored)
        for name in ("weights", "sibling"):
            (source / "organism" / name).symlink_to(embedded.weights().parent / name)
        every = (PACKAGE / "data/world/test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        self.prompts = folder / "prompts.jsonl"
        self.prompts.write_text("".join(every[::12]), encoding="utf-8")

    def change(self, edits: Sequence[tuple[str, str, str]], new: Mapping[str, str] | None = None) -> set[str]:
        """Make a recipe's edits.

        Args:
            edits: file, the text after which something is added, what is added. Each is quoted in CONTRIBUTING.md.
            new: files that are added, with their content.

        Returns:
            The files that the recipe touched or added, relative to the package.
        """
        source = self.folder / "src" / "cai_base"
        for file, anchor, added in edits:
            text = (source / file).read_text(encoding="utf-8")
            assert text.count(anchor) == 1, f"{file} has {anchor!r} {text.count(anchor)} times"
            (source / file).write_text(text.replace(anchor, anchor + added), encoding="utf-8")
            assert_in_contributing(added)
        for file, content in (new or {}).items():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_text(content, encoding="utf-8")
            assert_in_contributing(content)
        return {file for file, _, _ in edits} | set(new or {})

    def python(self, *arguments: str, code: int = 0) -> str:
        """What Python prints with the copy on its path, errors included."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src"), "OPENAI_API_KEY": "none"}
        command = [sys.executable, *arguments]
        ended = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=500
        )
        assert ended.returncode == code, f"{' '.join(arguments)}\n{ended.stdout}{ended.stderr}"
        return ended.stdout if code == 0 else ended.stderr

    def cai_base(self, *arguments: str, code: int = 0) -> str:
        """The output of a command run on the copy, or its message if another exit code is expected."""
        return self.python("-m", "cai_base", *arguments, code=code)

    def costs(self, **flags: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
        """The tokens of `cai-base cost` by name, with these flags and a paid judge."""
        runs = {name: ["cost", "--json", *PAID_JUDGE, *own] for name, own in flags.items()}
        script = f"from cai_base.cli import main\nfor flags in {list(runs.values())}:\n    assert main(flags) == 0"
        decoder, text, tokens = json.JSONDecoder(), self.python("-c", script).lstrip(), []
        while text:
            content, end = decoder.raw_decode(text)
            tokens.append(content["tokens"])
            text = text[end:].lstrip()
        return dict(zip(runs, tokens, strict=True))

    def text(self, name: str, run: str = "run") -> str:
        """A file of a run."""
        return (self.folder / run / name).read_text(encoding="utf-8")


def assert_in_contributing(code: str) -> None:
    """The page shows exactly what the test adds, as a block of its own that can be pasted."""
    blocks = {block.strip("\n").rstrip() for block in re.findall(r"^```\w*\n(.*?)^```$", CONTRIBUTING, re.M | re.S)}
    assert code.strip("\n").rstrip() in blocks, f"CONTRIBUTING.md has no block with this text alone:\n{code}"
