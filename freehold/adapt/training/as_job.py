"""The job that trains an adapter: reads the data as serving would, trains, and leaves a folder
that PEFT reads.

Nothing here needs PyTorch until it is known that there is something to train on. What follows
another spec, or goes on after a kill, is found in the work folder.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, get_args

from freehold import __version__
from freehold.adapt.training import rows
from freehold.adapt.training.peft_folder import MODULES
from freehold.adapt.training.recipe import LINEARS, Recipe, Sizes, Trainer, max_tokens, recipe_of
from freehold.adapt.training.rows import Encoder, Read
from freehold.core.errors import Code, UserError
from freehold.core.gguf import Header, read_header
from freehold.core.words import counted
from freehold.engines import told_files
from freehold.engines.openvino.prompt import prompts_of
from freehold.engines.openvino.weights import open_weights

FOLDER = "adapter"
_VOCABULARY = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Job:
    """`owner` names everything that the result depends on."""

    spec: Mapping[str, Any]
    files: Mapping[str, Path]
    recipe: Recipe
    train: Read
    held_out: Read
    work: Path
    cache: Path
    owner: str
    manifest: Mapping[str, Any]


class Tell(Protocol):
    """What a job may say, and whether it is asked to end."""

    def must_end(self) -> bool: ...

    def progress(self, **figures: Any) -> None: ...

    def log(self, text: str) -> None: ...


def run(spec: Mapping[str, Any], work: Path, home: Path, tell: Tell) -> Mapping[str, Any] | None:
    """The result, or None when it was asked to end and wrote a checkpoint. Raises `UserError`
    for what the caller can mend, `OSError` for a full disk."""
    if find_spec("torch") is None:
        raise UserError(
            Code.NOT_INSTALLED,
            "Training needs PyTorch, which is not installed here: install freehold[tune] and "
            "start it again.",
        )
    files = base_files(spec)
    tokenizer, template, prompts = prompts_of(files)
    header = _header(files)
    context, trainer = header.context_length, trainer_of(spec, files)
    most = max_tokens(spec, context)
    encoder, kind = Encoder(tokenizer, prompts), str(spec["data_kind"])
    train = rows.read(Path(spec["train"]), kind, encoder, most)
    held_out = rows.read(Path(spec["held_out"]), kind, encoder, most)
    _tell_left_out(tell, train)
    sizes = Sizes(
        header.embedding_length, context, len(train.examples), _tokens(train),
        tuple(each for each in MODULES if each in header.linears) or LINEARS,
    )  # fmt: skip
    recipe = recipe_of(spec, sizes, trainer)
    _check_kind(recipe, kind)
    tell.log(_sentence(recipe, train))
    manifest = {
        "base_digest": spec["base"],
        "tokenizer_digest": _tokenizer_digest(files, spec["base"]),
        "template_digest": template.digest,
        "dataset_digest": spec.get("dataset"),
        "recipe": recipe.plain(),
        "licences": dict(spec.get("licences") or {}),
        "made_with": _made_with(trainer),
    }
    owner = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    # Threads that wait for each other by spinning take the cores from whoever serves, and
    # from each other where there are fewer cores than threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Without it cuBLAS may sum in another order each time; read before the first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    module = "with_trl" if trainer == "trl" else "loop"
    training = import_module(f"freehold.adapt.training.{module}").Training
    job = Job(spec, files, recipe, train, held_out, work, home / "cache", owner, manifest)
    result: Mapping[str, Any] | None = training(job, tell).run()
    return result


def base_files(spec: Mapping[str, Any]) -> dict[str, Path]:
    """By their names. Raises `MODEL_NOT_FOUND` where they are not there, `DIGEST_MISMATCH`
    where they are not those that serve."""
    path = Path(spec["base_path"])
    if path.is_dir():
        files = {each.name: each for each in sorted(path.iterdir()) if each.is_file()}
    else:
        files = {"model.gguf": path} if path.is_file() else {}
    if not files:
        raise UserError(
            Code.MODEL_NOT_FOUND,
            f"The base {str(spec['base'])[:19]} is not there (any more): pull it again.",
        )
    if told_files.digest(files) != spec["base"]:
        raise UserError(
            Code.DIGEST_MISMATCH,
            f"The base {str(spec['base'])[:19]} was changed on the disk: pull it again.",
        )
    return files


def _header(files: Mapping[str, Path]) -> Header:
    from freehold.catalog import checkpoint

    return checkpoint.read(files) or read_header(next(iter(files.values())))


def trainer_of(spec: Mapping[str, Any], files: Mapping[str, Path]) -> Trainer:
    """The one that was asked for; else our own, where it computes the base's family. Raises
    `UserError` for one that cannot train this base here."""
    asked: Trainer | None = spec.get("trainer")
    if asked not in (None, *get_args(Trainer)):
        raise UserError(
            Code.INVALID_VALUE, "trainer is not one of freehold, trl: choose one.", param="trainer"
        )
    try:
        open_weights(files)
        trainer = asked or "freehold"
    except UserError:
        if asked == "freehold":
            raise
        trainer = "trl"
    if trainer == "trl" and _VOCABULARY not in files:
        raise UserError(
            Code.FILE_REFUSED,
            "TRL trains on a base's safetensors here, and this one is a GGUF file: pull the "
            "checkpoint that it was made of, and train on that.",
        )
    if trainer == "trl" and find_spec("trl") is None:
        raise UserError(
            Code.NOT_INSTALLED,
            "This base is trained by TRL, which is not installed here: install "
            "freehold[tune-trl] and start it again.",
        )
    return trainer


def _tokenizer_digest(files: Mapping[str, Path], base: str) -> str:
    """A GGUF file holds its tokenizer, and is known as a whole."""
    return told_files.digest({"": files[_VOCABULARY]}) if _VOCABULARY in files else base


def _made_with(trainer: Trainer) -> dict[str, str]:
    from importlib.metadata import version

    peers = ("transformers", "trl", "peft") if trainer == "trl" else ()
    return {
        "freehold": __version__,
        **{name: version(name) for name in ("torch", *peers)},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _tokens(read: Read) -> int:
    pairs = sum(len(each.chosen.ids) + len(each.rejected.ids) for each in read.pairs)
    return pairs + sum(len(row.ids) for row in read.rows)


def _check_kind(recipe: Recipe, kind: str) -> None:
    if (recipe.objective == "dpo") != (kind == "preference"):
        wanted = "chats" if recipe.objective == "sft" else "pairs of answers"
        raise UserError(
            Code.INVALID_VALUE,
            f"The data set holds {kind} examples, and the objective {recipe.objective} learns "
            f"from {wanted}: choose the other objective, or another data set.",
            param="objective",
        )


def _tell_left_out(tell: Tell, train: Read) -> None:
    if train.too_long:
        tell.log(f"Left out {counted(train.too_long, 'example')}: longer than is allowed.")
    if train.unusable:
        tell.log(f"Left out {counted(train.unusable, 'example')}: nothing to be learned in there.")


def _sentence(recipe: Recipe, train: Read) -> str:
    bits = f"{recipe.bits} bits" if recipe.bits else "16 bits"
    return (
        f"{len(train.examples)} examples of {_tokens(train)} tokens, {recipe.objective}, base in "
        f"{bits}, rank {recipe.rank}, learning rate {recipe.learning_rate:g}, at most "
        f"{counted(recipe.epochs, 'epoch')}."
    )
