"""A page as one file: nothing in it runs, and nothing is fetched from elsewhere."""

import os
import re
import secrets
from base64 import b64encode
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.core.errors import Code, UserError
from freehold.decide.money.money import shown

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = resources.files("freehold.cli") / "pages"


def check_place(file: Path) -> None:
    """Raises `UserError` where no page could be written, before anybody waits for one."""
    if file.is_dir():
        raise _refused(file, "it is a folder")
    if file.exists() and not file.is_file():
        raise _refused(file, "it is no ordinary file")
    if not file.parent.is_dir():
        raise _refused(file, f"there is no folder {file.parent}")
    if not os.access(file.resolve().parent, os.W_OK | os.X_OK):
        raise _refused(file, f"nothing may be written in {file.resolve().parent}")


def write_page(file: Path, page: str) -> None:
    """Whole or not at all, over what was there, with the rights that it had."""
    check_place(file)
    whole = file.resolve()  # what a link leads to, and not the link
    made = whole.with_name(f".{whole.name[:100]}.{secrets.token_hex(8)}")
    try:
        with made.open("x", encoding="utf-8") as out:
            out.write(page)
            if whole.exists():
                os.fchmod(out.fileno(), whole.stat().st_mode & 0o777)
        made.replace(whole)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise _refused(file, error.strerror or "it cannot be written") from None


def _refused(file: Path, why: str) -> UserError:
    return UserError(
        Code.INVALID_VALUE,
        f"No page can be written to {file}: {why}. Name another file.",
        param="html",
    )


def rendered(name: str, view: Any) -> str:
    """All text in it is escaped by the template."""
    style = "".join((_FOLDER / f"{each}.css").read_text("utf-8") for each in ("page", name))
    style_hash = b64encode(sha256(style.encode()).digest()).decode()
    page = _pages().get_template(f"{name}.html")
    return page.render(view=view, style=style, style_hash=style_hash)


def _pages() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def text_of(name: str) -> str:
        return (_FOLDER / name).read_text("utf-8")

    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(text_of),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "money": money,
        "link": _link,
        "shown": shown,
        "words": lambda text: text.replace("_", " "),
    }
    return made


def money(value: float) -> str:
    """Cents only where they are much of it."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:,.2f}"


def _link(where: str | None) -> str | None:
    """What a browser may open: sources are what somebody wrote into a file."""
    return where if where and re.match(r"https?://", where) else None
