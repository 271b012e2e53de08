"""`trainer`: from trips and a road map to a distilled route generator."""

from __future__ import annotations

import sys

import typer

from trainer.commands.bundle import bundle_command
from trainer.commands.data import prepare_command, tokens_command
from trainer.commands.evaluate import evaluate_command
from trainer.commands.foreign import export_command, import_command
from trainer.commands.generate import generate_command
from trainer.commands.label import label_command
from trainer.commands.train import train_command
from trainer.commands.tune import tune_command
from trainer.data.sample_city import sample_city_command
from trainer.demo import demo_command
from trainer.errors import TrainerError
from trainer.signals import exit_on_signals

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From trips and a road map to a distilled route generator.",
)
app.command("sample-city")(sample_city_command)
app.command("prepare")(prepare_command)
app.command("tokens")(tokens_command)
app.command("label")(label_command)
app.command("train")(train_command)
app.command("tune")(tune_command)
app.command("generate")(generate_command)
app.command("evaluate")(evaluate_command)
app.command("bundle")(bundle_command)
app.command("import")(import_command)
app.command("export")(export_command)
app.command("demo")(demo_command)


def main() -> None:
    """Run the command line; an error of the user's ends in one line and its exit code."""
    try:
        with exit_on_signals():
            app()
    except TrainerError as error:
        print(f"trainer: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"trainer: error: {error.filename or 'file system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
