"""`trainer`: from trips and a road map to a distilled route generator."""

from __future__ import annotations

import sys

import typer

from trainer.errors import TrainerError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From trips and a road map to a distilled route generator.",
)


def main() -> None:
    """Run the command line; an error of the user's ends in one line and its exit code."""
    try:
        app()
    except TrainerError as error:
        print(f"trainer: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
