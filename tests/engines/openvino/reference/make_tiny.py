"""Make tiny random models with adapters, and what transformers and PEFT answer with them.

    python make_tiny.py [name …]

Needs what README.md lists; the tests read only what this leaves in `tiny/`.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_gguf
import torch
from gguf import GGMLQuantizationType as Kind
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM
from written import dump

HERE = Path(__file__).parent
TEXT = HERE.parents[3] / "freehold" / "deploy" / "trial.txt"
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENS = 300
LENGTHS = (3, 14, 45, 100)  # one is longer than three blocks of 32
NEW_TOKENS = 24
LEAST_MARGIN = 0.01  # between the first and the second choice, at every greedy step
GAINS = {"q_proj": 1.5, "k_proj": 1.5, "o_proj": 2.0, "lm_head": 4.0}

BASE_CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "vocab_size": TOKENS,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "use_cache": True,
}


@dataclass(frozen=True)
class Tiny:
    name: str
    seed: int
    dtype: torch.dtype
    config: dict[str, Any]
    gguf: tuple[Kind, ...] = ()
    shards: int = 1
    removed: tuple[str, ...] = ()


MODELS = [
    Tiny(
        "llama",
        1,
        torch.float32,
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
        },
        gguf=(Kind.Q8_0,),
    ),
    Tiny(
        "llama3",
        2,
        torch.bfloat16,
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "tie_word_embeddings": False,
            "rope_theta": 50000.0,
            "rope_scaling": {
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 64,
                "rope_type": "llama3",
            },
            "torch_dtype": "bfloat16",
        },
        gguf=(Kind.F16,),
    ),
    Tiny(
        "qwen2",
        13,
        torch.float16,
        {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "tie_word_embeddings": True,
            "rope_theta": 1000000.0,
            "rms_norm_eps": 1e-6,
            "vocab_size": TOKENS + 20,  # more rows than the tokenizer has tokens, as in Qwen
            "sliding_window": 128,
            "use_sliding_window": False,
            "max_window_layers": 2,
            "torch_dtype": "float16",
        },
        gguf=(Kind.F16,),
    ),
    Tiny(
        "qwen3",
        4,
        torch.bfloat16,
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "tie_word_embeddings": False,
            "head_dim": 32,  # four heads of 32 over 64 hidden
            "attention_bias": False,
            "rms_norm_eps": 1e-6,
            # As version 5 of transformers writes it.
            "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
            "dtype": "bfloat16",
        },
        gguf=(Kind.BF16,),
        removed=("rope_theta",),
    ),
    Tiny(
        "mistral",
        5,
        torch.bfloat16,
        {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "tie_word_embeddings": False,
            "sliding_window": None,
            "torch_dtype": "bfloat16",
        },
        shards=2,
    ),
]

# What each adapter shows: a plain one, rank-stabilized scaling, and patterns over a part.
ADAPTERS: dict[str, tuple[dict[str, Any], torch.dtype]] = {
    "plain-r4": ({"r": 4, "lora_alpha": 8, "target_modules": LINEARS}, torch.float32),
    "rslora-r16": (
        {"r": 16, "lora_alpha": 8, "target_modules": LINEARS, "use_rslora": True},
        torch.bfloat16,
    ),
    "part-r8": (
        {
            "r": 8,
            "lora_alpha": 16,
            "target_modules": ["q_proj", "v_proj", "down_proj"],
            "layers_to_transform": [1],
            "rank_pattern": {"v_proj": 5, "layers.1.mlp.down_proj": 3},
            "alpha_pattern": {"v_proj": 20},
        },
        torch.float16,
    ),
}


def main() -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    for tiny in MODELS:
        if not sys.argv[1:] or tiny.name in sys.argv[1:]:
            make(tiny, HERE / "tiny" / tiny.name)


def make(tiny: Tiny, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    weights = write_model(tiny, folder)
    write_adapters(tiny, folder)
    dump(folder / "reference.json", reference(tiny.name, folder, LENGTHS))
    for kind in tiny.gguf:
        path = folder / f"{tiny.name}-{kind.name}.gguf"
        arrays = {name: value.float().numpy() for name, value in weights.items()}
        tiny_gguf.write(path, folder, arrays, kind)
        answers = reference(path.name, folder, LENGTHS[1::2], gguf_file=path.name)
        dump(path.with_suffix(".json"), answers)


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(TEXT)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    dump(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIALS[1],
            "eos_token": SPECIALS[2],
            "pad_token": SPECIALS[0],
            "add_bos_token": False,
            "chat_template": CHATML,
            "model_max_length": 512,
        },
    )


def write_model(tiny: Tiny, folder: Path) -> dict[str, torch.Tensor]:
    config = {**BASE_CONFIG, **tiny.config}
    for key in tiny.removed:
        del config[key]
    dump(folder / "config.json", config)
    dump(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 0]})
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    generator = torch.Generator().manual_seed(tiny.seed)
    weights = {
        name: random_weight(name, value, generator).to(tiny.dtype)
        for name, value in model.state_dict().items()
        if not (name == "lm_head.weight" and config["tie_word_embeddings"])
    }
    save(weights, folder, tiny.shards)
    return weights


def random_weight(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Such that attention looks about, and what it sees outweighs the last token itself."""
    noise = torch.randn(like.shape, generator=generator)
    if name.endswith("norm.weight"):
        return 1 + noise / 5
    if name.endswith(".bias"):
        return noise / 2
    if "embed_tokens" in name:
        return noise * 0.3
    gain = GAINS.get(name.split(".")[-2], 1.0)
    return noise * gain / like.shape[1] ** 0.5


def save(weights: dict[str, torch.Tensor], folder: Path, shards: int) -> None:
    if shards == 1:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return
    placed: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {name: weights[name] for name in sorted(weights)[number::shards]}
        save_file(part, folder / file, {"format": "pt"})
        placed |= dict.fromkeys(part, file)
    size = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(placed.items()))}
    dump(folder / "model.safetensors.index.json", index)


def write_adapters(tiny: Tiny, folder: Path) -> None:
    for number, (name, (settings, dtype)) in enumerate(ADAPTERS.items()):
        generator = torch.Generator().manual_seed(100 * tiny.seed + number)
        config = LoraConfig(task_type="CAUSAL_LM", **settings)
        model = get_peft_model(load(folder), config)
        for key, value in model.named_parameters():
            if "lora_" in key:
                noise = torch.randn(value.shape, generator=generator)
                value.data = (noise / (2 * value.shape[1] ** 0.5)).to(dtype)
        target = folder / "adapters" / name
        model.save_pretrained(target)
        (target / "README.md").unlink()
        settle(target / "adapter_config.json", f"tiny-{tiny.name}")


def settle(path: Path, base: str) -> None:
    """PEFT writes where the base lay, and its modules in the order of a set."""
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2) + "\n")


def load(folder: Path, **options: Any) -> Any:
    """The folder's config even for GGUF, of which transformers leaves `rope_freqs` unread."""
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        config=AutoConfig.from_pretrained(folder),
        dtype=torch.float32,
        attn_implementation="eager",
        **options,
    )
    return model.eval()


@contextmanager
def adapted(model: Any, adapter: str) -> Iterator[None]:
    if adapter == "base":
        with model.disable_adapter():
            yield
    else:
        model.set_adapter(adapter)
        yield


def with_adapters(model: Any, folder: Path) -> Any:
    names = iter(ADAPTERS)
    first = next(names)
    model = PeftModel.from_pretrained(model, folder / "adapters" / first, first)
    for name in names:
        model.load_adapter(folder / "adapters" / name, name)
    return model.eval()


def greedy(model: Any, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The new tokens, the last prompt position's logits, and the least margin of each row."""
    out = model(input_ids=prompts, use_cache=True)
    first = out.logits[:, -1]
    new, margins = [], []
    for _ in range(NEW_TOKENS):
        best = out.logits[:, -1].topk(2)
        margins.append(best.values[:, 0] - best.values[:, 1])
        new.append(best.indices[:, :1])
        out = model(input_ids=new[-1], past_key_values=out.past_key_values, use_cache=True)
    return torch.cat(new, dim=1), first, torch.stack(margins).min(0).values


def reference(name: str, folder: Path, lengths: tuple[int, ...], **options: Any) -> dict[str, Any]:
    model = with_adapters(load(folder, **options), folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompts = [choose_prompt(model, tokenizer, length) for length in lengths]
    answers: dict[str, list[dict[str, Any]]] = {}
    for adapter in ["base", *ADAPTERS]:
        with adapted(model, adapter):
            answers[adapter] = [answer(model, prompt["ids"]) for prompt in prompts]
    return {"model": name, "prompts": prompts, "answers": answers}


def choose_prompt(model: Any, tokenizer: Tokenizer, length: int) -> dict[str, Any]:
    """The piece of text whose greedy paths are furthest from a tie, base and adapters alike.

    A path that meets a special token, or that repeats itself early, is no good test."""
    pieces = torch.tensor(pieces_of(tokenizer, length))
    worst = torch.full((len(pieces),), torch.inf)
    for adapter in ["base", *ADAPTERS]:
        with adapted(model, adapter):
            new, _, margin = greedy(model, pieces)
        various = torch.tensor([len(set(row.tolist())) >= 6 for row in new])
        plain = (new >= len(SPECIALS)).all(1) & (new < TOKENS).all(1)
        worst = torch.minimum(worst, torch.where(various & plain, margin, 0))
    best = int(worst.argmax())
    assert worst[best] > LEAST_MARGIN, (length, worst[best])
    ids = pieces[best].tolist()
    return {"text": tokenizer.decode(ids), "ids": ids}


def pieces_of(tokenizer: Tokenizer, length: int) -> list[list[int]]:
    """Some hundreds of stretches of the text that tokenize alike on their own."""
    ids = tokenizer.encode(TEXT.read_text()).ids
    starts = range(0, len(ids) - length, max(1, (len(ids) - length) // 400))
    pieces = [ids[start : start + length] for start in starts]
    return [piece for piece in pieces if tokenizer.encode(tokenizer.decode(piece)).ids == piece]


def answer(model: Any, ids: list[int]) -> dict[str, Any]:
    tokens, logits, margin = greedy(model, torch.tensor([ids]))
    least = float(margin[0])
    return {
        "greedy": tokens[0].tolist(),
        "margin": float(f"{least:.3g}"),
        "logits": [float(f"{value:.6g}") for value in logits[0].tolist()],
    }


if __name__ == "__main__":
    main()
