"""A hook of mkdocs: links from docs/ to files outside it, which a site does not have.

They lead to the repository where `repo_url` in mkdocs.yml names it, and are plain text where it does not.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#\s]+|[\w./-]+\.json)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """The page with those links changed. A link to a file that is not there is left, and mkdocs warns of it."""

    def changed(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        file = (ROOT / "docs" / Path(page.file.src_uri).parent / target).resolve()
        if not file.exists():
            return match.group(0)
        if not config.repo_url:
            return str(text)
        return f"[{text}]({config.repo_url}/blob/main/{file.relative_to(ROOT).as_posix()}{anchor or ''})"

    return LINK.sub(changed, markdown)
