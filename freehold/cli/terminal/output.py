"""How a command speaks: tables for people, JSON for machines, errors in a sentence."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NoReturn

import orjson
import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from freehold.core.errors import Code, FreeholdError, UserError

# A pipe has no width of its own: lines in it must not be broken at a terminal's.
_PIPE_WIDTH = 240
_SENTENCE = 20  # characters a line, at least, of a cell of several words
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
    """Words in it are whole, so that names and ids can be copied: where a terminal is too narrow
    for that, each row is a paragraph."""
    if not rows:
        console.print(empty)
        return
    cells = [["" if cell is None else _cell(cell) for cell in row] for row in rows]
    texts = [list(map(Text.from_markup, each)) for each in zip(columns, *cells, strict=True)]
    if sum(map(_least, texts)) + 2 * (len(texts) - 1) > console.width:
        _paragraphs(columns, cells)
        return
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for column, value, mine in zip(columns, rows[0], texts, strict=True):
        justify: Literal["left", "right"] = "right" if isinstance(value, int | float) else "left"
        is_words = any(" " in each.plain for each in mine)
        drawn.add_column(column, justify=justify, overflow="fold", no_wrap=not is_words)
    for row in cells:
        drawn.add_row(*row)
    console.print(drawn)


def _least(texts: Sequence[Text]) -> int:
    """So wide is their column at least: no word is broken, and no sentence at each of its words."""
    longest = max(cell_len(word) for text in texts for word in text.plain.split() or [""])
    return max(longest, min(_SENTENCE, max(text.cell_len for text in texts)))


def _paragraphs(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    label = max(map(len, columns)) + 2
    for number, row in enumerate(rows):
        if number:
            console.print()
        for column, cell in zip(columns, row, strict=True):
            if cell:
                console.print(f"[bold]{column:{label}}[/bold]{cell}", soft_wrap=True)


def labelled(rows: Iterable[tuple[str, Any]]) -> None:
    """Of one thing what is known, each under its name."""
    known = list(rows)
    width = max([14, *(len(label) + 2 for label, _ in known)])
    for label, value in known:
        console.print(f"{label:{width}}{plain(value)}", soft_wrap=True)


def in_a_line(values: Mapping[str, Any]) -> str:
    """Each under its name; what nobody set is left out."""
    given = {name.replace("_", " "): each for name, each in values.items() if each is not None}
    return ", ".join(f"{name} {_written(each)}" for name, each in given.items())


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.4g}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,.0f}"
    return str(value)


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


@contextmanager
def errors_in_a_sentence(as_json: bool = False) -> Iterator[None]:
    """Ends the command with exit code 1 and one sentence for each of our errors."""
    try:
        yield
    except FreeholdError as error:
        message = error.message if isinstance(error, UserError) else f"Internal: {error.message}"
        _end(message, error.code, as_json)
    except UnicodeEncodeError:  # bytes of a word that were no text
        _end("What you gave is not all UTF-8: correct it.", Code.INVALID_VALUE, as_json)


def _end(message: str, code: Code, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"error": {"message": message, "code": code.value}})
    else:
        is_piped = not sys.stderr.isatty()
        stderr.print(f"[red]Error:[/red] {plain(message)}", soft_wrap=is_piped)
    raise typer.Exit(1) from None
