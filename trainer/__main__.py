"""`trainer`: from trips and a road map to a distilled route generator."""

from __future__ import annotations

import sys

import typer

from trainer.commands.late import add_late
from trainer.errors import TrainerError
from trainer.signals import exit_on_signals

# In the order of the help. Each is imported when it is used; what the help says of it is its function's docstring.
COMMANDS = {
    "sample-city": "trainer.data.sample_city:sample_city_command",
    "prepare": "trainer.commands.data:prepare_command",
    "tokens": "trainer.commands.data:tokens_command",
    "label": "trainer.commands.label:label_command",
    "train": "trainer.commands.train:train_command",
    "tune": "trainer.commands.tune:tune_command",
    "generate": "trainer.commands.generate:generate_command",
    "evaluate": "trainer.commands.evaluate:evaluate_command",
    "compare": "trainer.commands.compare:compare_command",
    "report": "trainer.commands.report:report_command",
    "bundle": "trainer.commands.bundle:bundle_command",
    "capacity": "trainer.commands.capacity:capacity_command",
    "import": "trainer.commands.foreign:import_command",
    "export": "trainer.commands.foreign:export_command",
    "demo": "trainer.demo:demo_command",
}
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From trips and a road map to a distilled route generator.",
)
for name, place in COMMANDS.items():
    add_late(app, name, place)


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
