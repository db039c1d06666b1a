"""The process that measures a model's formats, started by deploy/quality.py: progress
and results leave it as lines of JSON on its standard output."""

import argparse
import sys
from dataclasses import asdict
from importlib.resources import files as resources
from typing import Any

import orjson

from freehold.core.errors import UserError
from freehold.engines import child, told_files
from freehold.engines.openvino.measure import measure
from freehold.engines.openvino.tokenizer import Tokenizer


def main() -> None:
    child.settle_in()
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", action="append", required=True, help="NAME=PATH, each of them")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--tokens", type=int)
    options = parser.parse_args()
    try:
        _measure(options)
    except UserError as error:
        _say({"error": {"code": error.code.value, "message": error.message}})


def _measure(options: argparse.Namespace) -> None:
    files = told_files.by_name(options.file)
    text = (resources("freehold.engines.openvino") / "measure.txt").read_text("utf-8")
    tokens = Tokenizer.of_model(files).encode(text, parse_special=False)

    def told(what: str, done: int, of: int) -> None:
        _say({"doing": what, "done": done, "of": of})

    for found in measure(files, tokens, options.tokens, options.threads, told):
        _say({"measured": asdict(found)})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
