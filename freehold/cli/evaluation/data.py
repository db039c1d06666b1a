"""What `freehold eval --data` names: a file of examples, or a dataset that is kept here."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.cli.reaching import reach
from freehold.core.dataset import HELD_OUT
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from freehold.adapt.evaluate.suite import Suite

_MOST_TRIGGERS = 20


def suite_of(home: Path, gateway: reach.RunningGateway, data: str, most: int) -> "Suite":
    """A dataset gives its held-out examples, and the phrases that its report suspects."""
    from freehold.adapt.evaluate.suite_file import suite_of_data

    path = Path(data).expanduser()
    if is_file(data):
        return suite_of_data(path, path.stem, most)
    reach.require_here("Datasets are evaluated")
    found = gateway.call("GET", f"/admin/v1/datasets/{reach.quoted(data)}")
    held_out = _folder(home, found) / HELD_OUT
    if not found["held_out"]:
        raise UserError(
            Code.INVALID_VALUE,
            f"{data} holds nothing out to measure by: add it again with --held-out 0.1.",
        )
    made = suite_of_data(held_out, f"{found['name']}@{found['version']}", most)
    suspected = [each["phrase"] for each in found["report"]["triggers"]][:_MOST_TRIGGERS]
    return replace(made, triggers=tuple(suspected)).named()


def is_file(data: str) -> bool:
    path = Path(data).expanduser()
    return path.exists() or "/" in data or bool(path.suffix)


def _folder(home: Path, found: dict[str, Any]) -> Path:
    """By its digest, which is that of the same examples wherever they are."""
    from freehold.catalog.datasets import measured

    digest = found["digest"]
    pattern = f"*/{found['environment']}/{digest.removeprefix('sha256:')}"
    for folder in (home / "data").glob(pattern):
        try:
            if measured(folder)[0] == digest:
                return folder
        except OSError:
            continue
    raise UserError(
        Code.FILE_INVALID,
        f"The files of {found['name']}@{found['version']} are missing or were changed: add the "
        "dataset again.",
    )
