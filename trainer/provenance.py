"""Which state of this program makes a result."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from trainer import __version__

ROOT = Path(__file__).resolve().parents[1]


@cache
def program() -> dict[str, str | None]:
    """`version` and, where it runs from a git checkout, `commit`, with `-dirty` behind it where files were changed."""
    return {"version": __version__, "commit": _commit()}


def _commit() -> str | None:
    if not (ROOT / ".git").exists():  # installed somewhere, perhaps within a checkout of something else
        return None
    words = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):  # no git, or not allowed to look
        return None
