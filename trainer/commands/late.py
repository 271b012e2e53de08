"""Commands whose modules are imported when they are used, for most of them need torch, which takes two seconds."""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand


class LateCommand(TyperCommand):
    """Stands for the real one, which is made when it has arguments to read, its own --help among them."""

    where: ClassVar[str]  # module:function

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """That of the real command, which is then the one that is run."""
        return self.real().make_context(*arguments, **more)

    def real(self) -> Any:
        """The command of the function, as if it were the only one."""
        module, function = self.where.split(":")
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(getattr(import_module(module), function))
        return typer.main.get_command(alone)


def add_late(app: typer.Typer, name: str, place: str) -> None:
    """Adds the function at `place` (module:function) as a command; its docstring is the help."""

    class Command(LateCommand):
        where = place

    app.command(name, cls=Command, help=docstring(place))(lambda: None)


def docstring(place: str) -> str:
    """A function's docstring, read without running its module. Raises LookupError where there is none."""
    module, function = place.split(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise LookupError(f"no module {module}")
    for node in ast.parse(Path(spec.origin).read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function and (text := ast.get_docstring(node)):
            return text
    raise LookupError(f"{module} has no function {function} with a docstring")
