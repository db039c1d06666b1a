"""llama.cpp's own server: `llama_server.py GGUF PORT STREAMS CONTEXT THREADS [ADAPTER ...]`."""

import signal
import sys

import xllamacpp


def main() -> None:
    path, port, streams, context, threads, *adapters = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_parallel = int(streams)
    params.n_ctx = int(context) * int(streams)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.n_gpu_layers = 0
    params.cache_ram_mib = 0
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(each, 0.0) for each in adapters]
    params.lora_init_without_apply = True
    server = xllamacpp.Server(params)
    signal.sigwait({signal.SIGTERM})
    del server


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
