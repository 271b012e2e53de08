"""The page: one HTML file that needs nothing else, and may load nothing else (its Content-Security-Policy)."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

SCRIPTS = ("charts.js", "streets.js", "map.js", "journeys.js", "page.js")
EMPTY_STYLE = ""  # plotly adds a style element without text and fills it by script
# Plotly carries styles of street maps that it fetches, which no report has; it adds them unless an element has this id.
STYLE_MARK = re.compile(r'getElementById\("([0-9a-f]{64})"\)')


def render(content: dict[str, Any]) -> str:
    """The whole page. Names in `content` are untrusted: the template escapes them."""
    style = _text("report.css")
    scripts = [get_plotlyjs(), "".join(_text(name) for name in SCRIPTS)]
    for text in (style, *scripts):
        if "</script" in text.lower() or "<!--" in text or "</style" in text.lower():
            raise AssertionError("would end the element that it is put into")
    environment = Environment(
        loader=PackageLoader("trainer.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = content_policy(style, scripts)
    inlined: dict[str, Any] = {
        "style": Markup(style),
        "scripts": [Markup(script) for script in scripts],
        "policy": policy,
    }
    inlined["marks"] = sorted(set(STYLE_MARK.findall(scripts[0])))
    return environment.get_template("report.html").render(content | inlined)


def content_policy(style: str, scripts: list[str]) -> str:
    """Only what is inlined here may run or style; nothing may be fetched, framed or sent."""
    runs, styles = (" ".join(_hash(text) for text in texts) for texts in (scripts, [style, EMPTY_STYLE]))
    return (
        f"default-src 'none'; script-src {runs}; style-src {styles}; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(name: str) -> str:
    return (files("trainer.report") / "page" / name).read_text(encoding="utf-8")
