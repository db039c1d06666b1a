"""vLLM's process: proves the digest of its files, loads them, and serves behind a door of
ours on its socket. It opens no port, asks no hub, tells nobody of its use, and keeps what
it must write beside its socket."""

import argparse
import asyncio
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from freehold.engines import child, told_files
from freehold.engines.vllm import log

_EXIT_DIGEST = 3
_LOOK_S = 1.0
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM has kernels for


def main() -> None:
    child.settle_in()
    options = _options()
    files = told_files.by_name(options.file)
    digest = told_files.digest(files)
    if digest != options.digest:
        sys.stderr.write(f"the files are {digest}, expected {options.digest}\n")
        sys.exit(_EXIT_DIGEST)
    folder = Path(tempfile.mkdtemp(prefix="vllm-", dir=Path(options.socket).parent))
    _settle_vllm(options, folder)
    clean = log.start()
    asyncio.run(_run(options, _named(files, folder / "model"), folder, clean))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", action="append", required=True, help="NAME=PATH, each of them")
    parser.add_argument("--digest", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--gpu-memory", type=float, required=True)
    parser.add_argument("--kv-cache-bytes", type=int)
    parser.add_argument("--max-rank", type=int, required=True)
    parser.add_argument("--adapters-at-once", type=int, required=True)
    parser.add_argument("--max-adapters", type=int, required=True)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--eager", action="store_true")
    return parser.parse_args()


def _named(files: dict[str, Path], folder: Path) -> Path:
    """A folder with these files under their names and nothing else: no code, no template
    that the digest does not cover."""
    folder.mkdir()
    for name, path in files.items():
        (folder / Path(name).name).symlink_to(path.resolve())
    return folder


def _settle_vllm(options: argparse.Namespace, folder: Path) -> None:
    """vLLM reads these when it is imported, and so do its own processes."""
    os.environ |= {
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_PLUGINS": "",  # nothing else that is installed there is loaded
        "VLLM_HOST_IP": "127.0.0.1",  # or it looks for the machine's address
        "VLLM_RPC_BASE_PATH": str(folder),
        "TMPDIR": str(folder),
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if options.gpus > 1 else "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(options.threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if options.gpus == 1:
        os.environ["FREEHOLD_VLLM_ALONE"] = "1"
    if options.eager:  # the sampler too, whose parts are compiled at their first use
        os.environ["TORCH_COMPILE_DISABLE"] = "1"
    tempfile.tempdir = None  # to be read again


def _arguments(options: argparse.Namespace, model: Path) -> list[str]:
    arguments = [
        f"--model={model}",
        f"--served-model-name={options.digest}",
        "--tokenizer-mode=hf",
        "--load-format=safetensors",
        "--generation-config=vllm",  # the model's own would change what a request asks for
        f"--dtype={options.dtype}",
        f"--max-model-len={options.context}",
        f"--max-num-seqs={options.streams}",
        f"--gpu-memory-utilization={options.gpu_memory}",
        f"--tensor-parallel-size={options.gpus}",
        "--enable-prefix-caching",
        "--prefix-caching-hash-algo=sha256",
        "--enable-prompt-tokens-details",
        "--fingerprint-mode=none",
        "--disable-log-stats",
        "--enable-lora",
        f"--max-lora-rank={next(rank for rank in _RANKS if rank >= options.max_rank)}",
        f"--max-loras={options.adapters_at_once}",
        f"--max-cpu-loras={options.max_adapters}",
    ]
    if options.kv_cache_bytes is not None:
        arguments.append(f"--kv-cache-memory-bytes={options.kv_cache_bytes}")
    if options.eager:
        arguments.append("--enforce-eager")
    return arguments


async def _run(options: argparse.Namespace, model: Path, folder: Path, clean: "log.Clean") -> None:
    import uvicorn
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from freehold.engines.vllm.door import Door
    from freehold.engines.vllm.shelf import Shelf

    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(_arguments(options, model))
    validate_parsed_serve_args(parsed)
    async with build_async_engine_client(parsed) as engine:
        tasks = await engine.get_supported_tasks()
        app = build_app(parsed, tasks, engine.model_config)
        await init_app_state(engine, app.state, parsed, tasks)
        holder = _Holder(app.state.openai_serving_models)
        shelf = Shelf(holder, folder / "adapters", options.max_adapters)
        config = uvicorn.Config(
            Door(app, options.digest, shelf),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        watching = asyncio.create_task(_die_with(engine))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(options.socket)
        clean.begin()
        await uvicorn.Server(config).serve(sockets=[listener])
        watching.cancel()


class _Holder:
    """`models` is vLLM's own list of what it serves."""

    def __init__(self, models: Any) -> None:
        self._models = models

    async def load(self, digest: str, folder: Path) -> bool:
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        asked = LoadLoRAAdapterRequest(lora_name=digest, lora_path=str(folder))
        return isinstance(await self._models.load_lora_adapter(asked), str)

    async def remove(self, digest: str) -> None:
        """vLLM's own way out of its list leaves the weights where they are."""
        number = self._models.lora_requests.pop(digest).lora_int_id
        await self._models.engine_client.remove_lora(number)


async def _die_with(engine: Any) -> None:
    """What computes is another process: when that is gone, nobody is left waiting here,
    and the supervisor starts both again."""
    while not engine.errored:  # noqa: ASYNC110 - vLLM tells nobody
        await asyncio.sleep(_LOOK_S)
    os._exit(1)
