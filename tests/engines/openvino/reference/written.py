"""How the references are written down."""

import json
from pathlib import Path
from typing import Any


def dump(path: Path, value: dict[str, Any]) -> None:
    """Indented but for lists of numbers, which take one line each."""
    lines: list[str] = []
    for line in json.dumps(value, indent=1, ensure_ascii=False).splitlines():
        bare = line.strip()
        ends = bare in ("]", "],") and _is_number(lines[-1].rsplit(",", 1)[-1].rsplit("[", 1)[-1])
        if ends or _is_number(bare.removesuffix(",")):
            lines[-1] += bare
        else:
            lines.append(line)
    path.write_text("\n".join(lines) + "\n")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
