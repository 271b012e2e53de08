"""`teacher`: fit, export, serve and judge a teacher."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from teacher_server.commands import describe, evaluate, export, fit
from teacher_server.errors import InvalidRequest, TeacherError
from teacher_server.settings import serve

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fit, export, serve and judge an LM-TAD teacher.",
)

for command in (fit, export, describe, evaluate, serve):
    app.command()(command)


@app.command()
def score(
    address: Annotated[str, typer.Argument(help="grpc://HOST:PORT, HOST:PORT or unix:PATH.")],
    request: Annotated[typer.FileText, typer.Argument(help="JSON file; - is standard input.")] = "-",  # type: ignore[assignment]
) -> None:
    """Ask a served teacher for log-probabilities: {"histories": [[1, 2]], "candidates": [[[3, 4]]], "window": 0}."""
    from teacher_server.client import score_address

    try:
        content = json.load(request)
    except ValueError as error:
        raise InvalidRequest(f"{request.name}: not valid JSON: {error}") from None
    print(json.dumps(score_address(address, content)))


def main() -> None:
    """Run the command line; an error of the user's ends in one line and its exit code."""
    try:
        app()
    except TeacherError as error:
        print(f"teacher: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
