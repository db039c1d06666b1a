"""LoRA beside QLoRA, the base in 8 and in 4 bits, on the same data: held-out loss, how many of the
tickets held out are routed rightly once the adapter serves, time and memory.

    .venv-tune/bin/python bench/tune_bits.py

Needs the environment of `make test-tune`, as the gateway's own interpreter trains. The first start
fetches the small model; `--models HOME` takes it from a home that has it. Losses and shares are the
same on a busy machine; seconds are not.
"""

import argparse
import json

from machine import Row, exclusive, keep
from tune_beside import BASE, parser_of, said, with_tickets

from freehold import __version__
from tests.installation import Installation

_BITS = {16: (), 8: ("--bits", "8"), 4: ("--bits", "4")}


def main() -> None:
    parser = parser_of()
    parser.add_argument("--tickets", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    with with_tickets(options.models, options.tickets, "--held-out", "0.2") as installation:
        said(installation, "route", "set", "plain", "--base", BASE)
        rows = []
        for bits in _BITS:
            with exclusive(options.lock):
                rows += _trained(installation, bits, options)
        keep("tune_bits", rows)


def _trained(installation: Installation, bits: int, options: argparse.Namespace) -> list[Row]:
    name, adapter = f"{'LoRA' if bits == 16 else 'QLoRA'}, {bits} bits", f"router-{bits}"
    epochs = ("--epochs", str(options.epochs))
    job = said(installation, "tune", "tickets", "--base", BASE, "--name", adapter, *_BITS[bits],
               *epochs, "--yes", "--follow")  # fmt: skip
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
