"""Training by TRL and PEFT, for bases whose families our own decoder does not compute: the same
ids, recipe, limits and result, several times slower.

Needs `freehold[tune-trl]`. Nothing of a base is run but what transformers brings itself.
"""

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import peft
import torch
import transformers
import trl
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from freehold.adapt.training import batches, checkpoint, ending, peft_folder, trl_checkpoint
from freehold.adapt.training.as_job import FOLDER, Job, Tell
from freehold.adapt.training.checkpoint import State
from freehold.adapt.training.ending import MOST_HELD_OUT, PATIENCE
from freehold.adapt.training.recipe import BETA, part_tokens
from freehold.adapt.training.rows import Pair, Row
from freehold.core.errors import Code, UserError
from freehold.engines.cores import usable_cores

Array = npt.NDArray[np.float32]
_NOT_LEARNED = -100
_CHECKPOINT_EVERY_S = 60.0


class Training:
    def __init__(self, job: Job, tell: Tell) -> None:
        self._job, self._recipe, self._tell = job, job.recipe, tell
        self._state = State()
        self._best: dict[str, Array] = {}
        self._loss = 0.0
        self._held_out = job.held_out.examples[:MOST_HELD_OUT]

    def run(self) -> Mapping[str, Any] | None:
        with ending.out_of_memory():
            return self._run()

    def _run(self) -> Mapping[str, Any] | None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or usable_cores()))
        work = self._job.work / trl_checkpoint.FOLDER
        trainer = self._trainer(work)
        kept = trl_checkpoint.newest(work, self._job.owner)
        if kept is not None:
            self._state, self._best = kept.state, kept.best
            self._tell.log(f"Goes on from step {self._state.step} of {trainer.steps}.")
        elif self._held_out:
            self._state.held_out_before = trainer.evaluate()["eval_loss"]
        watch = _Watch(self, trainer)
        trainer.add_callback(watch)
        if self._state.worse < PATIENCE:
            trainer.train(resume_from_checkpoint=None if kept is None else str(kept.folder))
        if watch.error is not None:
            raise watch.error
        if watch.is_asked_to_end:
            return None
        return self._result(work)

    # before the first step

    def _trainer(self, work: Path) -> Any:
        on = "cuda" if torch.cuda.is_available() else "cpu"
        if on != "cpu":  # attention, for one, takes another way back only then
            torch.use_deterministic_algorithms(True)
        base = _base(Path(self._job.spec["base_path"]), self._recipe.bits, on)
        count = sum(values.numel() for values in base.parameters())
        hidden, layers = base.config.hidden_size, base.config.num_hidden_layers
        linears = self._modules(base)
        sizes = [_size(each) for each in self._job.train.examples]
        longest = max(_longest(each) for each in (*self._job.train.examples, *self._held_out))
        adapted = sum(self._recipe.rank * sum(base.get_submodule(n).weight.shape) for n in linears)
        part = part_tokens(
            self._job.spec.get("max_memory_bytes"), (2 * count, hidden, layers, adapted), longest
        )
        examples = batches.per_step(sizes, self._recipe.batch_tokens)
        at_once = max(1, min(examples, part // longest))
        settings = self._settings(work, on, at_once, -(-examples // at_once))
        is_dpo = self._recipe.objective == "dpo"
        made = (_Preferences if is_dpo else _Chats)(
            owner=self,
            model=base,
            args=settings,
            train_dataset=_columns(self._job.train.examples),
            eval_dataset=_columns(self._held_out) if self._held_out else None,
            processing_class=_tokenizer(Path(self._job.spec["base_path"])),
            peft_config=peft.LoraConfig(
                r=self._recipe.rank,
                lora_alpha=self._recipe.alpha,
                target_modules=linears,
                task_type="CAUSAL_LM",
            ),
        )
        # TRL halves the factors over a base in few bits, and a checkpoint comes back whole: what
        # goes on would not be what began.
        for each in made.model.parameters():
            if each.requires_grad:
                each.data = each.data.float()
        for each in (PrinterCallback, ProgressCallback):
            made.remove_callback(each)
        return made

    def _modules(self, base: Any) -> list[str]:
        """Of the base's own, whole, so that none of a like name elsewhere is changed."""
        wanted = {
            peft_folder.module_of(0, name).partition(".0.")[2] for name in self._recipe.targets
        }
        return [
            name
            for name, _ in base.named_modules()
            if name.startswith("model.layers.") and name.split(".", 3)[-1] in wanted
        ]

    def _settings(self, work: Path, on: str, at_once: int, parts: int) -> Any:
        recipe = self._recipe
        common: dict[str, Any] = {
            "output_dir": str(work),
            "per_device_train_batch_size": at_once,
            "per_device_eval_batch_size": at_once,
            "gradient_accumulation_steps": parts,
            "learning_rate": recipe.learning_rate,
            "num_train_epochs": recipe.epochs,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.05,
            "seed": recipe.seed % 2**32,
            "use_cpu": on == "cpu",
            "gradient_checkpointing": on != "cpu",
            "save_strategy": "no",
            "eval_strategy": "epoch" if self._held_out else "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "max_length": None,
            "full_determinism": False,
        }
        if recipe.objective == "dpo":
            return trl.DPOConfig(**common, beta=BETA)
        return trl.SFTConfig(**common, dataset_kwargs={"skip_prepare_dataset": True})

    # while it trains

    def heard(self, loss: float, tokens: int) -> None:
        """Of a part of a step."""
        if not math.isfinite(loss):
            raise ending.no_number(self._state.step, self._recipe)
        self._state.tokens += tokens
        self._loss += loss

    def stepped(self, step: int, steps: int, seconds: float) -> UserError | None:
        """Why it may not go on."""
        state = self._state
        state.step, state.loss, self._loss = step, self._loss, 0.0
        state.seconds += seconds
        self._tell.progress(**ending.progress(state, steps))
        return ending.over_limits(state, self._job.spec, steps)

    def must_end(self) -> bool:
        return self._tell.must_end()

    def compared(self, held_out: float | None, adapter: Mapping[str, torch.Tensor]) -> bool:
        """Whether another look is worth it; keeps what does best."""
        if ending.looked(self._state, held_out):
            self._best = {name: _plain(value) for name, value in adapter.items()}
        return self._state.worse < PATIENCE

    def keep(self, folder: Path) -> None:
        trl_checkpoint.finish(folder, self._job.owner, asdict(self._state), self._best)

    def _result(self, work: Path) -> Mapping[str, Any]:
        ending.outcome(self._tell, self._state)
        peft_folder.write(
            self._job.work / FOLDER, self._recipe, _factors(self._best), self._job.manifest
        )
        shutil.rmtree(work, ignore_errors=True)
        checkpoint.remove(self._job.work)
        return ending.result_of(self._job, self._state, has_held_out=bool(self._held_out))


class _Trained(transformers.Trainer):
    """What both trainers do otherwise than TRL's own."""

    def __init__(self, *, owner: Training, **options: Any) -> None:
        self._owner = owner
        super().__init__(**options)

    @property
    def steps(self) -> int:
        parts = len(self.get_train_dataloader())
        per_epoch = -(-parts // int(self.args.gradient_accumulation_steps))
        return per_epoch * int(self.args.num_train_epochs)

    def adapter(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(self.model)
        return found

    def training_step(self, model: Any, inputs: Mapping[str, Any], *more: Any) -> Any:
        tokens = int(inputs["attention_mask"].sum())
        loss = super().training_step(model, inputs, *more)
        self._owner.heard(float(loss), tokens)
        return loss

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        super()._save_checkpoint(*arguments, **options)
        at = self.state.global_step
        self._owner.keep(Path(self.args.output_dir) / f"checkpoint-{at}")


class _Chats(_Trained, trl.SFTTrainer):
    """Of rows whose labels are made already."""


class _Preferences(_Trained, trl.DPOTrainer):
    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """Its ids are made already, as serving makes them."""
        return dataset


class _Watch(transformers.TrainerCallback):
    """Between steps: limits, checkpoints, and whether it is to end."""

    def __init__(self, owner: Training, trainer: Any) -> None:
        self._owner, self._trainer = owner, trainer
        self.error: UserError | None = None
        self.is_asked_to_end = False
        self._stepped_at = self._written_at = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._stepped_at = self._written_at = time.monotonic()
        self._ask(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        self.error = self._owner.stepped(state.global_step, state.max_steps, now - self._stepped_at)
        self._stepped_at = now
        if self.error is not None:
            control.should_save = control.should_training_stop = True
        elif now - self._written_at > _CHECKPOINT_EVERY_S:
            control.should_save, self._written_at = True, now
        if state.global_step < state.max_steps:
            self._ask(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not control.should_evaluate:
            self._compare(None, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        self._compare(metrics["eval_loss"], control)
        self._stepped_at = time.monotonic()

    def _compare(self, held_out: float | None, control: Any) -> None:
        if not self._owner.compared(held_out, self._trainer.adapter()):
            control.should_training_stop = True

    def _ask(self, control: Any) -> None:
        if self._owner.must_end():
            self.is_asked_to_end = control.should_save = control.should_training_stop = True


def _base(folder: Path, bits: int | None, on: str) -> Any:
    """Raises `FILE_REFUSED` for what transformers does not load whole."""
    options: dict[str, Any] = {"dtype": torch.bfloat16, "local_files_only": True}
    if bits is not None:
        options["quantization_config"] = _quantized(bits, on)
    try:
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (ValueError, KeyError, OSError, ImportError) as error:
        why = str(error).strip().partition("\n")[0][:200]
        raise _refused(f"transformers does not load it ({why})") from error
    if told["missing_keys"]:
        raise _refused(f"it lacks the tensor {min(told['missing_keys'])[:80]}")
    return model


def _quantized(bits: int, on: str) -> Any:
    if on == "cpu":
        raise UserError(
            Code.UNSUPPORTED_PARAMETER,
            f"A base of this family is trained in {bits} bits on a GPU only: leave --bits and "
            "--method qlora out.",
            param="bits",
        )
    if not transformers.utils.is_bitsandbytes_available():
        raise UserError(
            Code.NOT_INSTALLED,
            f"Training in {bits} bits needs bitsandbytes here: install it beside "
            "freehold[tune-trl].",
        )
    return transformers.BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _refused(why: str) -> UserError:
    return UserError(
        Code.FILE_REFUSED, f"This base cannot be trained, as {why}: choose another base."
    )


def _tokenizer(folder: Path) -> Any:
    """Only to fill rows up: the ids are made already."""
    made = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    made.pad_token = made.eos_token = made.convert_ids_to_tokens(0)
    return made


def _columns(examples: Sequence[tuple[Row, ...] | Pair]) -> Dataset:
    if isinstance(examples[0], Pair):
        pairs = [each for each in examples if isinstance(each, Pair)]
        return Dataset.from_list([_pair(each) for each in pairs])
    rows = [row for each in examples if not isinstance(each, Pair) for row in each]
    return Dataset.from_list([_row(row) for row in rows])


def _row(row: Row) -> dict[str, list[int]]:
    labels = [_NOT_LEARNED] * len(row.ids)
    for place in row.targets:
        labels[place] = row.ids[place]
    return {"input_ids": list(row.ids), "labels": labels}


def _pair(pair: Pair) -> dict[str, list[int]]:
    at = pair.chosen.learned[0][0]
    return {
        "prompt_ids": list(pair.chosen.ids[:at]),
        "chosen_ids": list(pair.chosen.ids[at:]),
        "rejected_ids": list(pair.rejected.ids[pair.rejected.learned[0][0] :]),
    }


def _factors(adapter: Mapping[str, Array]) -> list[peft_folder.Factor]:
    found = []
    for name in sorted(adapter):
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            *_, layer, _, linear = module.split(".")
            found.append((int(layer), linear, adapter[name], adapter[f"{module}.lora_B.weight"]))
    return found


def _plain(value: torch.Tensor) -> Array:
    found: Array = value.detach().float().cpu().numpy().copy()
    return found


def _size(example: tuple[Row, ...] | Pair) -> int:
    return sum(len(row.ids) for row in _rows(example))


def _longest(example: tuple[Row, ...] | Pair) -> int:
    return max(len(row.ids) for row in _rows(example))


def _rows(example: tuple[Row, ...] | Pair) -> Sequence[Row]:
    return (example.chosen, example.rejected) if isinstance(example, Pair) else example
