"""Commands are imported when they are used: what that saves, and that nobody can tell otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.trainer.datasets import small_city, trainer
from trainer.__main__ import COMMANDS, app
from trainer.commands.late import docstring

HEAVY = ("torch", "grpc", "wandb")


def loaded(*words: str | Path) -> tuple[int, set[str]]:
    """Status of a command in a process of its own, and which of the heavy packages it imported."""
    code = f"""
import sys
from trainer.__main__ import main
try:
    main()
except SystemExit as end:
    status = end.code or 0
else:
    status = 0
print(status, *[name for name in {HEAVY} if name in sys.modules])
"""
    process = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=100, check=True
    )
    status, *names = process.stdout.splitlines()[-1].split()
    return int(status), set(names)


@pytest.mark.parametrize(("words", "status"), [((), 2), (("--help",), 0), (("trian",), 2), (("prepare", "--dta"), 2)])
def test_help_and_mistakes_import_nothing_heavy(words: tuple[str, ...], status: int) -> None:
    assert loaded(*words) == (status, set())


def test_commands_that_need_no_torch_do_not_import_it(tmp_path: Path) -> None:
    words = ("--data", small_city(tmp_path / "city"), "--cache", tmp_path / "cache")
    assert loaded("prepare", *words) == (0, set())
    assert loaded("tokens", *words, "--out", tmp_path / "tokens") == (0, set())
    assert loaded("bundle", "--help") == (0, set())


def test_the_control_a_command_that_needs_torch() -> None:
    status, names = loaded("train", "--help")
    assert status == 0
    assert "torch" in names


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_the_same_in_the_list_and_alone(name: str) -> None:
    said = docstring(COMMANDS[name])
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"}).output
    alone = trainer(name, "--help")
    assert alone.status == 0
    first = " ".join(said.split("\n\n")[0].split())
    assert first in " ".join(listed.split())
    assert first in " ".join(alone.out.split())


def test_a_command_that_is_not_there_is_found_when_it_is_registered() -> None:
    for place in ("trainer.demo:no_such", "trainer.no_such:f", "trainer.demo:_clear_"):
        with pytest.raises(LookupError):
            docstring(place)
