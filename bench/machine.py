"""What a result was measured on, and where results are kept."""

import contextlib
import fcntl
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

RESULTS = Path(__file__).parent / "results"
LOCK = "a file to lock while a round is measured; may be repeated"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `case` says under what load, `metric` what and in which unit."""

    system: str
    version: str
    case: str
    metric: str
    value: float


def describe() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory_gib = psutil.virtual_memory().total / 2**30
    cores = psutil.cpu_count()
    return f"{cores} cores of {model}, {memory_gib:.0f} GiB, Linux {platform.release()}"


def keep(
    name: str, rows: list[Row], merge: bool = False, elsewhere: tuple[str, str] | None = None
) -> Path:
    """Writes `results/<name>.json` and prints the rows as a table. With `merge`, rows that
    are there and were not measured this time stay. `elsewhere`: which machine it was, and when,
    where not this one, now."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    if merge and path.exists():
        measured = {_key(row) for row in rows}
        rows = [row for row in load(name) if _key(row) not in measured] + rows
    on, date = elsewhere or (describe(), time.strftime("%Y-%m-%d"))
    content = {
        "machine": on,
        "date": date,
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    show(rows)
    print(f"on {content['machine']}; kept in {path}")
    return path


def load(name: str) -> list[Row]:
    return [Row(**row) for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]]


def show(rows: list[Row]) -> None:
    for row in rows:
        print(f"{row.system:10} {row.version:10} {row.case:34} {row.metric:28} {row.value:12,.2f}")


@contextlib.contextmanager
def exclusive(locks: Sequence[Path]) -> Iterator[None]:
    """Alone on a machine whose other users lock one of the same files while they work."""
    with contextlib.ExitStack() as held:
        for path in locks:
            fcntl.flock(held.enter_context(path.open("a")), fcntl.LOCK_EX)
        yield


def _key(row: Row) -> tuple[str, str, str, str]:
    return row.system, row.version, row.case, row.metric
