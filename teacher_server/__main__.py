"""`teacher`: fit, export, serve and judge a teacher."""

from __future__ import annotations

import sys

import typer

from teacher_server.commands.bench import bench
from teacher_server.commands.health import health
from teacher_server.commands.offline import describe, evaluate, export, fit
from teacher_server.commands.score import score
from teacher_server.commands.serve import serve
from teacher_server.commands.triton import triton_repo
from teacher_server.errors import TeacherError

SERVER_EXTRA = {"fastapi", "httpx", "uvicorn", "grpc_reflection", "prometheus_client", "sklearn"}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fit, export, serve and judge an LM-TAD teacher.",
)

for command in (fit, export, describe, evaluate, serve, health, score, bench, triton_repo):
    app.command()(command)


def main() -> None:
    """Run the command line; an error of the user's ends in one line and its exit code."""
    try:
        app()
    except ModuleNotFoundError as error:
        if error.name not in SERVER_EXTRA:
            raise
        print(f"teacher: error: {error.name} is missing: pip install 'hoser-distill[server]'", file=sys.stderr)
        sys.exit(2)
    except TeacherError as error:
        print(f"teacher: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a disk that is full or gone, where nothing nearer knew what to say
        print(f"teacher: error: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
