"""OpenVINO GenAI in its own virtual environment: `genai_rounds.py GGUF STREAMS THREADS`.
Each line of input is a round; the answer says how many tokens it made in what time."""

import json
import sys
import time

import openvino_genai


def main() -> None:
    path, streams, threads = sys.argv[1:]
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = int(streams)
    scheduler.cache_size = 1
    properties = {"INFERENCE_NUM_THREADS": int(threads), "KV_CACHE_PRECISION": "u8"}
    pipeline = openvino_genai.ContinuousBatchingPipeline(path, scheduler, "CPU", properties)
    print("ready", flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = told["tokens"]
        config.ignore_eos = True
        config.do_sample = False
        config.apply_chat_template = False
        begun = time.perf_counter()
        found = pipeline.generate(told["prompts"], [config] * len(told["prompts"]))
        seconds = time.perf_counter() - begun
        made = found[0].perf_metrics.get_num_generated_tokens()  # of the whole round
        print(json.dumps({"made": made, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
