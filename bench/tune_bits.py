"""LoRA beside QLoRA, the base in 8 and in 4 bits, on the same data: held-out loss, how many of the
tickets held out are routed rightly once the adapter serves, time and memory.

    .venv-tune/bin/python bench/tune_bits.py

Needs the environment of `make test-tune`, as the gateway's own interpreter trains. The first start
fetches the small model; `--models HOME` takes it from a home that has it. Losses and shares are the
same on a busy machine; seconds are not.
"""

import argparse
import json
import tempfile
from pathlib import Path

from machine import LOCK, Row, exclusive, keep
from tune_beside import BASE, said

from freehold import __version__
from tests.adapt import tickets
from tests.installation import Installation, share, start

_BITS = {"LoRA, 16 bits": (), "QLoRA, 8 bits": ("--bits", "8"), "QLoRA, 4 bits": ("--bits", "4")}
_SAID = ("--licence", "LicenseRef-own", "--origin", "invented", "--held-out", "0.2")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path)
    parser.add_argument("--tickets", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lock", type=Path, action="append", default=[], help=LOCK)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        if options.models:
            share(options.models, home)
        installation = start(home)
        try:
            file = tickets.write(Path(folder) / "tickets.jsonl", options.tickets)
            said(installation, "data", "add", str(file), "--name", "tickets", *_SAID)
            said(installation, "route", "set", "plain", "--base", BASE)
            rows = []
            for name, chosen in _BITS.items():
                with exclusive(options.lock):
                    rows += _trained(installation, name, chosen, options)
            keep("tune_bits", rows)
        finally:
            installation.kill()


def _trained(
    installation: Installation, name: str, chosen: tuple[str, ...], options: argparse.Namespace
) -> list[Row]:
    adapter = f"router-{name[-7:-5].strip()}"
    epochs = ("--epochs", str(options.epochs))
    job = said(installation, "tune", "tickets", "--base", BASE, "--name", adapter, *chosen, *epochs,
               "--yes", "--follow")  # fmt: skip
    said(installation, "route", "set", adapter, "--base", BASE, "--adapter", adapter)
    done = installation.run(
        "eval", adapter, "--data", "tickets", "--against", "plain", "--json", timeout=7200
    )  # which ends with 1 where the gate is not passed
    found = json.loads(done.stdout)["measures"][0]
    shown = {
        "held-out loss": job["result"]["held_out_loss"],
        "routed rightly, %": found["candidate"]["share"] * 100,
        "routed rightly by the bare base, %": found["incumbent"]["share"] * 100,
        "held out": float(found["candidate"]["of"]),
        "seconds": job["result"]["seconds"],
        "peak memory, MiB": job["result"]["peak_memory_bytes"] / 2**20,
    }
    print(f"{name}: {shown}", flush=True)
    case = f"{options.tickets} tickets, {options.epochs} epochs"
    return [Row(name, __version__, case, *one) for one in shown.items()]


if __name__ == "__main__":
    main()
