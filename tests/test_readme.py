"""The documents' commands exist, with the flags that they are shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from teacher_server.__main__ import app as teacher_app
from trainer.__main__ import app as trainer_app
from trainer.commands.late import LateCommand

ROOT = Path(__file__).resolve().parents[1]
APPS = {"teacher": typer.main.get_command(teacher_app), "trainer": typer.main.get_command(trainer_app)}


def shown_commands() -> list[str]:
    """Every command line of ours in a shell block or in backticks that has an argument."""
    found = []
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = file.read_text()
        blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.S)).replace("\\\n", "")
        lines = re.findall(r"^(?:.*\| )?((?:teacher|trainer) [^#\n]*)", blocks, flags=re.M)
        lines += re.findall(r"`((?:teacher|trainer) [a-z-]+ [^`]*)`", text)
        found += [line.strip() for line in lines]
    return found


def test_there_is_something_to_check() -> None:
    assert len(shown_commands()) > 15


@pytest.mark.parametrize("line", shown_commands())
def test_command_and_flags_exist(line: str) -> None:
    program, name, *words = shlex.split(line.replace("[", "").replace("]", ""))
    group = APPS[program]
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    command = group.commands.get(name)
    if command is None:
        assert name == "COMMAND", f"no command {program} {name}"
        return
    if isinstance(command, LateCommand):
        command = command.real()
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_picture_is_there() -> None:
    assert (ROOT / "docs" / "line.svg").read_text().startswith("<svg")
    for target in re.findall(r"\]\((docs/[^)]+|LICENSE)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
