"""Jobs on tiny models of each family, as the job's process would do them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freehold.adapt.training import as_job
from freehold.engines import told_files
from tests.installation import Installation

TINY = Path(__file__).parents[1] / "engines" / "openvino" / "reference" / "tiny"
FAMILIES = ("llama", "llama3", "mistral", "qwen2", "qwen3")
_WORDS = ("billing", "shipping", "returns", "account")


@dataclass
class Told:
    """Asks the job to end before the step `ends_at`."""

    ends_at: int | None = None
    progresses: list[dict[str, Any]] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    _asked: int = 0

    def must_end(self) -> bool:
        self._asked += 1
        return self.ends_at is not None and self._asked > self.ends_at

    def progress(self, **figures: Any) -> None:
        self.progresses.append(figures)

    def log(self, text: str) -> None:
        self.logs.append(text)


def chats(count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "system", "content": "Name the team."},
                {"role": "user", "content": f"Ticket {at}: {_WORDS[at % 4][:3]} {at * 7 % 11}"},
                {"role": "assistant", "content": _WORDS[at % 4]},
            ]
        }
        for at in range(count)
    ]


def pairs(count: int) -> list[dict[str, Any]]:
    made = []
    for at, chat in enumerate(chats(count)):
        *prompt, chosen = chat["messages"]
        rejected = {"role": "assistant", "content": _WORDS[(at + 1) % 4]}
        made.append({"prompt": prompt, "chosen": [chosen], "rejected": [rejected]})
    return made


def spec(folder: Path, family: str = "llama", kind: str = "chat", **more: Any) -> dict[str, Any]:
    source = TINY / family
    base = folder / f"base-{family}"
    if not base.exists():
        base.mkdir()
        for file in source.iterdir():
            if file.is_file() and file.suffix != ".gguf" and file.name != "reference.json":
                (base / file.name).symlink_to(file)
    examples = chats(24) if kind == "chat" else pairs(24)
    for name, some in (("train", examples[:16]), ("held_out", examples[16:])):
        lines = "".join(json.dumps(each) + "\n" for each in some)
        (folder / f"{name}.jsonl").write_text(lines)
    return {
        "base": told_files.digest({each.name: each for each in base.iterdir()}),
        "base_path": str(base),
        "train": str(folder / "train.jsonl"),
        "held_out": str(folder / "held_out.jsonl"),
        "dataset": f"sha256:{0:064x}",
        "data_kind": kind,
        "objective": "sft" if kind == "chat" else "dpo",
        "rank": 4,
        "epochs": 3,
        "learning_rate": 5e-3,
        **more,
    }


def run(asked: dict[str, Any], folder: Path, told: Told | None = None) -> Any:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    return as_job.run(asked, work, folder / "home", told or Told())


def weights(folder: Path) -> bytes:
    return (folder / "work" / as_job.FOLDER / "adapter_model.safetensors").read_bytes()


def said(installation: Installation, *words: str, code: int = 0) -> Any:
    """What a command says with `--json`."""
    done = installation.run(*words, "--json", timeout=1200)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)
