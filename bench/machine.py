"""What a result was measured on, and where results are kept."""

import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

RESULTS = Path(__file__).parent / "results"


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


def keep(name: str, rows: list[Row]) -> Path:
    """Writes `results/<name>.json` and prints the rows as a table."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "machine": describe(),
        "date": time.strftime("%Y-%m-%d"),
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    for row in rows:
        print(f"{row.system:10} {row.version:10} {row.case:34} {row.metric:28} {row.value:12,.2f}")
    print(f"on {content['machine']}; kept in {path}")
    return path
