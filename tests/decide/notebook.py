"""Runs a notebook's cells of code, in order and in one namespace, and keeps what they print.

`python -m tests.decide.notebook docs/decide/worked_example.ipynb` writes the outputs anew."""

import io
import json
import os
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def stored(notebook: dict[str, Any]) -> list[str]:
    return [
        "".join(line for output in cell["outputs"] for line in output["text"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def run(notebook: dict[str, Any]) -> list[str]:
    """In a folder of its own: what cells write is gone afterwards."""
    namespace: dict[str, Any] = {}
    told = []
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                printed = io.StringIO()
                with redirect_stdout(printed):
                    exec("".join(cell["source"]), namespace)  # noqa: S102 - ours
                told.append(printed.getvalue())
    return told


def write(path: Path) -> None:
    notebook = read(path)
    outputs = iter(run(notebook))
    for number, cell in enumerate(c for c in notebook["cells"] if c["cell_type"] == "code"):
        text = next(outputs).splitlines(keepends=True)
        cell["execution_count"] = number + 1
        cell["outputs"] = (
            [{"name": "stdout", "output_type": "stream", "text": text}] if text else []
        )
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + os.linesep)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
