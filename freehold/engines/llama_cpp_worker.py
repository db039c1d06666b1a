"""The llama.cpp process: proves the file's digest, then serves it on its socket.

On a second socket, `….control`, it is told of adapters: `POST /v1/adapters` as in
`adapter_http.py`, with the numbers of the servers that the gateway still uses in `using`,
is answered with the number of the one to use from now on in `server` beside `refused`.
"""

import argparse
import hashlib
import json
import signal
import sys
from collections.abc import Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

from freehold.core.engine import AdapterFiles
from freehold.engines import child, llama_cpp_log
from freehold.engines.llama_cpp_servers import Servers

_EXIT_DIGEST = 3
_BATCH = 256  # tokens of prompts that are read at once
_NEVER_S = 3600.0


def main() -> None:
    child.settle_in()
    options = _options()
    address = Path(f"{options.socket}.control")
    address.unlink(missing_ok=True)  # of a process that was killed
    # It is there before the first server is: who sees that one may ask here.
    with UnixStreamServer(str(address), _Control) as control:
        _Control.servers = Servers(
            partial(_start, options),
            options.socket,
            options.model,
            options.cache,
            options.adapter_bytes,
        )
        llama_cpp_log.clean()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit())
        try:
            control.serve_forever(_NEVER_S)
        finally:
            _Control.servers.close()


class _Control(BaseHTTPRequestHandler):
    """Heard by the main thread, one after the other."""

    servers: Servers

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        add = [
            AdapterFiles(each["digest"], Path(each["config"]), Path(each["weights"]))
            for each in asked["add"]
        ]
        with llama_cpp_log.set_aside():
            refused, number = self.servers.change(add, asked["drop"], asked["using"])
        answer = json.dumps({"refused": refused, "server": number}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads that."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cache", type=Path, help="keeps converted adapters between starts")
    parser.add_argument("--adapter-bytes", type=int, default=0, help="of all that are wanted")
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--reuse-prompts", action="store_true", help="private measurements only")
    return parser.parse_args()


def _start(options: argparse.Namespace, socket: str, adapters: Sequence[Path]) -> object:
    import xllamacpp

    digest = "sha256:" + _sha256(options.model)
    if digest != options.digest:
        sys.stderr.write(f"{options.model} is {digest}, expected {options.digest}\n")
        sys.exit(_EXIT_DIGEST)
    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {digest}  # the name that each answer carries: what was loaded
    params.hostnames = [socket]
    params.n_parallel = options.streams
    params.n_ctx = options.context
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.n_gpu_layers = -1
    params.cache_ram_mib = 0
    params.cache_prompt = options.reuse_prompts
    params.slot_prompt_similarity = 0.0
    params.endpoint_slots = False
    params.endpoint_props = False
    params.endpoint_metrics = False
    params.ui = False
    params.use_jinja = True
    params.ctx_shift = False
    # A call that names none would be answered under all that have a scale here.
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), 0.0) for path in adapters]
    # A call that is left is noticed between two batches: a large one would hold its
    # place for many seconds on a slow machine.
    params.n_batch = params.n_ubatch = max(_BATCH, options.streams)
    if options.embeddings:  # an input must fit into one
        params.embedding = True
        params.n_batch = params.n_ubatch = options.context // options.streams
    return xllamacpp.Server(params)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
