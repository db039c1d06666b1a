"""What nobody foresaw: the traceback goes to a file, the person gets a sentence."""

import traceback

from freehold.config import load
from freehold.config.home import write_private


def report(error: Exception) -> str:
    """Writes `logs/crash.txt` in the home and says so; without a writable home the
    error's own name must do."""
    home = load.home()
    where = home.logs / "crash.txt"
    text = "".join(traceback.format_exception(error))
    try:
        home.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(where, text.encode())
    except OSError:
        return f"Something unforeseen happened ({type(error).__name__})."
    return f"Something unforeseen happened ({type(error).__name__}); {where} has the details."
