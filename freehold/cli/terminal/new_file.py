"""A new file where somebody wants it: whole under its name, or not there."""

import os
import secrets
import shutil
from pathlib import Path

from freehold.core.errors import Code, UserError


def check_new(target: Path) -> None:
    """Raises `UserError` where none could be made, before anybody waits for it."""
    if target.exists():
        raise UserError(Code.CONFLICT, f"{target} is there already: name another file.")
    if not target.parent.is_dir():
        raise UserError(
            Code.INVALID_VALUE, f"{target} cannot be written: there is no folder {target.parent}."
        )


def moved(made: Path, target: Path) -> None:
    """Readable by its owner alone, as it was made; also onto another disk."""
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}")
    try:
        with made.open("rb") as source, temporary.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            shutil.copyfileobj(source, file, 1024 * 1024)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise UserError(
            Code.INVALID_VALUE,
            f"{target} cannot be written ({error.strerror}): name another file.",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
