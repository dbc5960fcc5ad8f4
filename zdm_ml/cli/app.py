"""The command line's frame: one Typer app, errors on one screen, JSON on stdout."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress

from zdm_ml.errors import ZdmError

# A log has no width of its own: tables get one that holds them.
console = Console(
    stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else 120
)

app = typer.Typer(
    name="zdm",
    help="Retrain, compare, register and promote casting inspection models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_state = {"debug": False}


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show tracebacks and debug messages.")] = False,
) -> None:
    """Set up logging for whichever command follows."""
    _state["debug"] = debug
    level = logging.DEBUG if debug else logging.INFO
    handler: logging.Handler = logging.StreamHandler()
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_time=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("zdm_ml").setLevel(level)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while something is counted; yields a function that takes done and total."""
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def emit(value: Any) -> None:
    """Print a value as one line of JSON on stdout."""
    typer.echo(json.dumps(value, sort_keys=True, default=str))


def main() -> None:
    """Run the command line; a user's mistake ends with one message and exit code 1."""
    try:
        app()
    except ZdmError as error:
        if _state["debug"]:
            raise
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        sys.exit(1)
    except OSError as error:
        if _state["debug"]:
            raise
        console.print(f"error: {error}", style="bold red", markup=False)
        console.print(
            "  next: check space and owner of what it names; --debug shows where", markup=False
        )
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted", markup=False)
        sys.exit(130)
