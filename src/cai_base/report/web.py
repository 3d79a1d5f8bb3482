"""What every page for a browser is made with: the templates, escaping, and words that stay on one line."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cai_base.arms import ARMS
from cai_base.text import counted, without_controls

NO_BREAK = "\u00a0"
"""A space at which no line ends."""

HYPHENATED = re.compile("|".join(re.escape(arm.label) for arm in ARMS.values() if "-" in arm.label))
"""The names of arms that a browser would break at their hyphen."""


def web_environment() -> Environment:
    """The templates of the pages. Every value is escaped, and a name without a value is an error."""
    environment = Environment(
        loader=PackageLoader("cai_base.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    environment.filters["unbroken"] = unbroken
    environment.filters["without_controls"] = without_controls
    return environment


def unbroken(text: str) -> Markup:
    """The text, escaped. No line ends between a number and its sign, as in 5 % and < 0.001, or at the hyphen of an
    arm's name."""
    text = text.replace(" %", f"{NO_BREAK}%").replace("< 0", f"<{NO_BREAK}0")
    escaped = str(escape(text))
    return Markup(HYPHENATED.sub(r'<span class="whole">\g<0></span>', escaped))
