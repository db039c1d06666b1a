"""vLLM with the same model as a checkpoint of safetensors, under an interpreter of its own.

Only where `FREEHOLD_TEST_VLLM_PYTHON` names that interpreter and
`FREEHOLD_TEST_VLLM_MODEL` the checkpoint's folder, which `vllm_checkpoint.py` makes; see
`make test-vllm`.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from freehold.config.schema import VllmSettings
from freehold.core.ids import digest_of_files
from freehold.core.model import ModelFile
from freehold.engines.base import Engine, LocalModel
from freehold.engines.vllm.engine import Vllm
from tests.contract.engines.llama_cpp import CITY
from tests.contract.entry import LocalEntry, Place, Promise, Running
from tests.harness import card

PYTHON = os.environ.get("FREEHOLD_TEST_VLLM_PYTHON")
_MODEL = "FREEHOLD_TEST_VLLM_MODEL"
MAX_ADAPTERS = 4


class Entry(LocalEntry):
    name = "vllm"
    start_s = 900
    endless: Mapping[str, Any] = {
        "messages": [{"role": "user", "content": "Go on"}],
        "logit_bias": {CITY: 100},
        "max_tokens": 400,
    }
    cannot: Mapping[Promise, str] = {
        Promise.SAME_IN_ANY_BATCH: "sums in bfloat16 differ with the batch, and near ties fall",
        Promise.FORM_AND_TOOLS: "one schema says what a call is, a second cannot hold beside it",
    }

    def engine(self, cache: Path | None = None) -> Engine:
        return Vllm(
            VllmSettings(
                python=PYTHON,
                threads=1,
                streams=4,
                context_length=512,
                dtype="bfloat16",
                kv_cache_bytes=256 * 1024 * 1024,
                adapters_at_once=3,
                max_adapters=MAX_ADAPTERS,
                max_rank=8,
                eager=True,
            )
        )

    def model(self, place: Place) -> LocalModel:
        """As the store lays it: each file under its digest, all in one folder."""
        blobs = place.folder / "vllm-blobs"
        blobs.mkdir(exist_ok=True)
        files = []
        for path in sorted(Path(os.environ[_MODEL]).iterdir()):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not (blobs / digest).exists():
                (blobs / digest).symlink_to(path)
            files.append(ModelFile(path.name, f"sha256:{digest}", path.stat().st_size))
        found = replace(
            card("smollm2-135m-instruct-safetensors", context=8192),
            digest=digest_of_files({file.name: file.digest for file in files}),
            format="safetensors",
            quantization="BF16",
            files=tuple(files),
        )
        (main,) = [file for file in files if file.name.endswith(".safetensors")]
        return LocalModel(found, blobs / main.digest.removeprefix("sha256:"))

    def impostor(self, place: Place) -> tuple[Engine, LocalModel]:
        model = self.model(place)
        other = replace(model.card, digest="sha256:" + "0" * 64)
        return self.engine(), replace(model, card=other)

    def worked_s(self, running: Running) -> float:
        """What computes is a child of the process that was started."""
        processes = [running.process, *running.process.children(recursive=True)]
        times = [each.cpu_times() for each in processes]
        return float(sum(each.user + each.system for each in times))


ENTRY = Entry()
