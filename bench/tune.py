"""Training of an adapter beside TRL and PEFT with their defaults: the same base, data, rank,
learning rate, epochs and examples a step, in turns, each in a process of its own.

    python bench/tune.py MODEL.gguf --python .venv-tune/bin/python
    python bench/tune.py FOLDER --random llama-3.2-1b      on a machine with a GPU

With --random, FOLDER has a tokenizer alone, and the base is a Llama of that shape with random
weights: its losses compare the trainers, and say nothing of what is learned. On a GPU the peak is
that of the GPU's memory.

Held-out losses are worked out of the finished adapters, for both by the same code.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import LOCK, Row, describe, exclusive, keep

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.adapt import tickets

_SYSTEMS = ("freehold", "trl", "trl, no checkpointing")
_RANK, _RATE = 16, 1.2e-3


def main() -> None:
    options = _options()
    if options.worker:
        print(json.dumps(_WORKERS[options.worker](options) | {"on": _device()}), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.work = Path(folder)
        examples = list(tickets.examples(options.examples + options.held_out))
        random.Random(5).shuffle(examples)
        _write(options.work / "train.jsonl", examples[: options.examples])
        _write(options.work / "held_out.jsonl", examples[options.examples :])
        if options.random is not None:
            _ask(options, "random")
            options.model = options.work / "checkpoint"
        elif any(system.startswith("trl") for system in options.system):
            _ask(options, "checkpoint")
        rows = []
        systems = [*options.system]
        for turn in range(options.turns):
            for system in systems:
                with exclusive(options.lock):
                    found = _ask(options, system)
                print(f"turn {turn + 1}: {system}: {found}", flush=True)
                rows += _rows(system, found, options, turn)
        if found["on"] == "cpu":
            keep("tune", _middle(rows), merge=True)
        else:
            on = (f"one {found['on']} and {describe()}", time.strftime("%Y-%m-%d"))
            keep("tune_gpu", _middle(rows), merge=True, elsewhere=on)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--held-out", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--system", action="append")
    parser.add_argument("--worker", choices=_WORKERS)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--bits", type=int)
    parser.add_argument("--random", metavar="SHAPE", help="as gpu_steps.py names them")
    parser.add_argument("--plain", action="store_true", help="without gradient checkpointing")
    parser.add_argument("--lock", type=Path, action="append", default=[], help=LOCK)
    options = parser.parse_args()
    options.system = options.system or list(_SYSTEMS)
    return options


def _ask(options: argparse.Namespace, system: str) -> dict[str, Any]:
    worker, _, more = system.partition(", ")
    command = [options.python, __file__, str(options.model), f"--worker={worker}",
               f"--work={options.work}", f"--epochs={options.epochs}"]  # fmt: skip
    command += [f"--random={options.random}"] if options.random else []
    command += ["--plain"] if more == "no checkpointing" else []
    command += [f"--bits={more.split()[0]}"] if more.endswith("bits") else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _rows(system: str, found: dict[str, Any], options: argparse.Namespace, turn: int) -> list[Row]:
    of = f"random {options.random}, " if options.random else ""
    case = f"{of}{options.examples} tickets, {options.epochs} epochs"
    return [
        Row(system, found["version"], case, "tokens/s", found["tokens"] / found["seconds"]),
        Row(system, found["version"], case, "held-out loss", found["loss"]),
        Row(system, found["version"], case, "peak memory, MiB", found["peak_bytes"] / 2**20),
    ]


def _middle(rows: list[Row]) -> list[Row]:
    """The median of the turns."""
    grouped: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.system, row.case, row.metric), []).append(row)
    return [sorted(same, key=lambda row: row.value)[len(same) // 2] for same in grouped.values()]


def _freehold(options: argparse.Namespace) -> dict[str, Any]:
    import freehold
    from freehold.adapt.training import as_job

    work = options.work / f"freehold-{time.monotonic_ns()}"
    work.mkdir()
    spec = _spec(options) | {"bits": options.bits}
    result = as_job.run(spec, work, options.work / "home", _Silent())
    assert result is not None
    loss = _loss(options, work / "adapter", options.bits)
    version = freehold.__version__
    return {"version": version, "tokens": result["tokens"], "seconds": result["seconds"],
            "loss": loss, "peak_bytes": result["peak_memory_bytes"]}  # fmt: skip


def _trl(options: argparse.Namespace) -> dict[str, Any]:
    import peft
    import torch
    import trl
    from datasets import Dataset

    work = options.work / f"trl-{time.monotonic_ns()}"
    examples = [json.loads(line) for line in (options.work / "train.jsonl").open()]
    data = Dataset.from_list(
        [{"prompt": e["messages"][:-1], "completion": e["messages"][-1:]} for e in examples]
    )
    folder = str(options.work / "checkpoint")
    settings = trl.SFTConfig(
        output_dir=str(work), learning_rate=_RATE, num_train_epochs=options.epochs, seed=0,
        lr_scheduler_type="cosine", warmup_steps=0.05, report_to="none", save_strategy="no",
        use_cpu=not torch.cuda.is_available(), disable_tqdm=True,
        model_init_kwargs=_in_bits(options.bits),
        **({"gradient_checkpointing": False} if options.plain else {}),
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=folder,
        args=settings,
        train_dataset=data,
        peft_config=peft.LoraConfig(
            r=_RANK, lora_alpha=2 * _RANK, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    done = trainer.train()
    peak = _peak_bytes()
    trainer.save_model(str(work / "adapter"))
    return {"version": trl.__version__, "tokens": _tokens(options) * options.epochs,
            "seconds": done.metrics["train_runtime"], "peak_bytes": peak,
            "loss": _loss(options, work / "adapter", None)}  # fmt: skip


def _in_bits(bits: int | None) -> dict[str, Any] | None:
    """As QLoRA's authors load a base."""
    import torch
    import transformers

    if bits is None:
        return None
    config = transformers.BitsAndBytesConfig(
        load_in_8bit=bits == 8, load_in_4bit=bits == 4, bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    return {"quantization_config": config, "dtype": "bfloat16"}


def _peak_bytes() -> int:
    import resource

    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _random(options: argparse.Namespace) -> dict[str, Any]:
    """A Llama of random weights, in 16 bits as on the hub, with the tokenizer of the folder."""
    import torch
    import transformers
    from gpu_steps import SHAPES

    shape = next(each for each in SHAPES if each.model == options.random)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    config = transformers.LlamaConfig(
        num_hidden_layers=shape.layers, hidden_size=shape.hidden, head_dim=shape.head_dim,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.inner, vocab_size=len(tokenizer), tie_word_embeddings=True,
        max_position_embeddings=8192, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(7)
    with torch.device(_on()):
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    folder = options.work / "checkpoint"
    model.save_pretrained(folder)
    for file in options.model.iterdir():
        shutil.copy(file, folder)
    return {}


def _files(options: argparse.Namespace) -> dict[str, Path]:
    """By the names that they have in the model."""
    if options.model.is_dir():
        return {each.name: each for each in options.model.iterdir()}
    return {"model.gguf": options.model}


def _on() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _checkpoint(options: argparse.Namespace) -> dict[str, Any]:
    """The base as TRL reads it."""
    import transformers

    source, gguf = str(options.model.parent), options.model.name
    folder = options.work / "checkpoint"
    whole = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source, gguf_file=gguf, quantization_config=whole, dtype="float32"
    )
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source, gguf_file=gguf).save_pretrained(folder)
    return {}


class _Silent:
    def must_end(self) -> bool:
        return False

    def progress(self, **figures: Any) -> None:
        pass

    def log(self, text: str) -> None:
        pass


def _spec(options: argparse.Namespace) -> dict[str, Any]:
    from freehold.engines import told_files

    digest = told_files.digest(_files(options))
    return {
        "base": digest, "base_path": str(options.model), "data_kind": "chat", "objective": "sft",
        "train": str(options.work / "train.jsonl"), "dataset": f"sha256:{0:064x}",
        "held_out": str(options.work / "held_out.jsonl"), "rank": _RANK,
        "learning_rate": _RATE, "epochs": options.epochs,
    }  # fmt: skip


def _read(options: argparse.Namespace, name: str) -> Any:
    from freehold.adapt.training import rows
    from freehold.engines.openvino.prompt import prompts_of

    tokenizer, _, prompts = prompts_of(_files(options))
    return rows.read(options.work / name, "chat", rows.Encoder(tokenizer, prompts), 2048).rows


def _tokens(options: argparse.Namespace) -> int:
    return sum(len(row.ids) for row in _read(options, "train.jsonl"))


def _loss(options: argparse.Namespace, adapter: Path, bits: int | None) -> float:
    """Of the held-out answers, by the same code whoever trained the adapter."""
    import torch
    from safetensors.torch import load_file

    from freehold.adapt.training import batches
    from freehold.adapt.training.adapter import Adapter
    from freehold.adapt.training.base import load
    from freehold.adapt.training.decoder import Decoder
    from freehold.adapt.training.recipe import LINEARS
    from freehold.engines import told_files

    some = _read(options, "held_out.jsonl")
    files, cache = _files(options), options.work / "home" / "cache"  # where the job kept it
    base = load(told_files.digest(files), files, bits, cache, torch.bfloat16, _on())
    ours = Adapter(base.shape, _RANK, 2.0 * _RANK, LINEARS, 0, _on())
    tensors = load_file(adapter / "adapter_model.safetensors")
    with torch.no_grad():
        for layer, name, a, b in ours.factors(ours.values):
            block = "self_attn" if name[0] in "qkvo" else "mlp"
            module = f"base_model.model.model.layers.{layer}.{block}.{name}"
            a.copy_(tensors[f"{module}.lora_A.weight"])
            b.copy_(tensors[f"{module}.lora_B.weight"])
    decoder = Decoder(base, ours)
    firsts = [row.learned[0][0] for row in some]
    groups = [[at] for at in range(len(some))]
    parts = batches.parts([row.ids for row in some], firsts, groups, 1024)
    whole = sum(float(decoder.logprobs(some, part)[0].sum()) for part in parts)
    return -whole / sum(len(row.targets) for row in some)


def _write(path: Path, examples: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in examples))


_WORKERS = {"checkpoint": _checkpoint, "random": _random, "freehold": _freehold, "trl": _trl}

if __name__ == "__main__":
    main()
