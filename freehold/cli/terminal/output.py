"""How a command speaks: tables for people, JSON for machines, errors in a sentence."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from freehold.core.errors import FreeholdError, UserError

# A pipe has no width of its own: lines in it must not be broken at a terminal's.
_PIPE_WIDTH = 240
console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
stderr = Console(
    stderr=True,
    highlight=False,
    emoji=False,
    width=None if sys.stderr.isatty() else _PIPE_WIDTH,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def print_json(content: Any) -> None:
    sys.stdout.write(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode() + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
    if not rows:
        console.print(empty)
        return
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        right = bool(rows) and isinstance(rows[0][list(columns).index(column)], int | float)
        drawn.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*("" if cell is None else _cell(cell) for cell in row))
    console.print(drawn)


def labelled(rows: Iterable[tuple[str, Any]]) -> None:
    """Of one thing what is known, each under its name."""
    for label, value in rows:
        console.print(f"{label:14}{plain(value)}", soft_wrap=True)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return plain(value)


def plain(value: Any) -> str:
    """For text that others chose: it orders neither colours here nor the terminal."""
    return escape(printable(str(value)))


def printable(text: str) -> str:
    """Control characters become marks, so that a text cannot steer the terminal."""
    return "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def rate(value: float) -> str:
    return f"{value:,.0f} tokens/s"


def money(micro: int) -> str:
    """In the settings' currency, to the smallest part that there is."""
    whole, parts = divmod(micro, 1_000_000)
    return f"{whole:,}.{f'{parts:06d}'.rstrip('0').ljust(2, '0')}"


def size(value: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value} B"


@contextmanager
def errors_in_a_sentence(as_json: bool = False) -> Iterator[None]:
    """Ends the command with exit code 1 and one sentence for each of our errors."""
    try:
        yield
    except FreeholdError as error:
        message = error.message if isinstance(error, UserError) else f"Internal: {error.message}"
        if as_json:
            print_json({"error": {"message": message, "code": error.code.value}})
        else:
            is_piped = not sys.stderr.isatty()
            stderr.print(f"[red]Error:[/red] {plain(message)}", soft_wrap=is_piped)
        raise typer.Exit(1) from None
