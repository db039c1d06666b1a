"""The llama.cpp process: proves the file's digest, then serves it on its socket."""

import argparse
import hashlib
import signal
import sys
import threading
from pathlib import Path

from freehold.engines import child, llama_cpp_log

_EXIT_DIGEST = 3
_BATCH = 256  # tokens of prompts that are read at once


def main() -> None:
    child.settle_in()
    options = _options()
    digest = "sha256:" + _sha256(options.model)
    if digest != options.digest:
        sys.stderr.write(f"{options.model} is {digest}, expected {options.digest}\n")
        sys.exit(_EXIT_DIGEST)
    server = _serve(options, digest)
    llama_cpp_log.clean()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    del server


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--reuse-prompts", action="store_true", help="private measurements only")
    return parser.parse_args()


def _serve(options: argparse.Namespace, digest: str) -> object:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {digest}  # the name that each answer carries: what was loaded
    params.hostnames = [options.socket]
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
