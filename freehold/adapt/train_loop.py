"""From examples to a finished adapter, step by step, so that it can end and go on anywhere."""

import math
import os
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from freehold.adapt import batches, checkpoint, peft_folder, recipe
from freehold.adapt.checkpoint import State
from freehold.adapt.recipe import BETA, Recipe
from freehold.adapt.rows import Read, Row
from freehold.adapt.train import FOLDER, Tell
from freehold.adapt.train_adapter import Adapter
from freehold.adapt.train_base import load
from freehold.adapt.train_decoder import Decoder
from freehold.core.errors import Code, UserError
from freehold.engines.cores import usable_cores

_CHECKPOINT_EVERY_S = 60.0
_PATIENCE = 3  # looks at the held-out examples that may follow each other without gain
_GAIN = 0.002  # of the loss, that counts as one
_MOST_HELD_OUT = 512
_MOST_NORM = 1.0  # of a step's gradient
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


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


class Examples:
    """Rows by number, and which belong to which example. A pair's are chosen, rejected."""

    def __init__(self, read: Read, most: int | None = None) -> None:
        self.rows: list[Row] = []
        self.groups: list[list[int]] = []
        for each in read.examples[:most]:
            own = [each.chosen, each.rejected] if not isinstance(each, tuple) else list(each)
            self.groups.append(list(range(len(self.rows), len(self.rows) + len(own))))
            self.rows += own
        self.ids = [row.ids for row in self.rows]
        self.firsts = [row.learned[0][0] for row in self.rows]
        self.sizes = [sum(len(self.ids[i]) for i in group) for group in self.groups]
        self.longest = max(map(len, self.ids), default=0)

    def parts(self, numbers: Sequence[int], most: int) -> list[batches.Part]:
        return batches.parts(self.ids, self.firsts, [self.groups[i] for i in numbers], most)

    def learned(self, numbers: Sequence[int]) -> int:
        return sum(len(self.rows[i].targets) for at in numbers for i in self.groups[at])


class Training:
    def __init__(self, job: Job, tell: Tell) -> None:
        self._job, self._recipe, self._tell = job, job.recipe, tell
        self._train = Examples(job.train)
        self._held_out = Examples(job.held_out, _MOST_HELD_OUT)
        self._plan = [
            numbers
            for epoch in range(job.recipe.epochs)
            for numbers in batches.steps(
                self._train.sizes, job.recipe.batch_tokens, job.recipe.seed, epoch
            )
        ]
        self._look_every = max(1, len(self._plan) // job.recipe.epochs)
        self._state = State()
        self._began = time.monotonic()

    def run(self) -> Mapping[str, Any] | None:
        try:
            self._prepare()
            return self._result() if self._steps() else None
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not _is_no_memory(error):
                raise
            raise UserError(
                Code.LIMIT_REACHED,
                "The machine has too little memory for this training: allow fewer tokens an "
                "example, train with the base in 4 bits, or end something else.",
            ) from error

    # before the first step

    def _prepare(self) -> None:
        job, recipe_ = self._job, self._recipe
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or usable_cores()))
        on = "cuda" if torch.cuda.is_available() else "cpu"
        # cuDNN's attention, for one, takes another way back only where warnings would not do.
        torch.use_deterministic_algorithms(True, warn_only=on == "cpu")
        base = load(job.spec["base"], job.files, recipe_.bits, job.cache, torch.bfloat16, on)
        self._adapter = Adapter(
            base.shape, recipe_.rank, recipe_.alpha, recipe_.targets, recipe_.seed, on
        )
        self._values = self._adapter.values
        self._first, self._second = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._best = self._values.clone()
        self._decoder = Decoder(base, self._adapter)
        sizes = (base.nbytes, base.shape.hidden, base.shape.layers, self._values.numel())
        longest = 2 * max(self._train.longest, self._held_out.longest)
        self._part = recipe.part_tokens(job.spec.get("max_memory_bytes"), sizes, longest)
        self._references = self._reference(self._train), self._reference(self._held_out)
        self._go_on()
        if self._state.held_out_before is None and self._held_out.groups:
            self._state.held_out_before = self._look()

    def _reference(self, examples: Examples) -> Tensor | None:
        """Of each row, what the bare base gives its answer; for DPO."""
        if self._recipe.objective != "dpo" or not examples.groups:
            return None
        found = torch.zeros(len(examples.rows))
        for part in examples.parts(range(len(examples.groups)), self._part):
            found[list(part.rows)] = self._sums(examples, part, adapted=False).cpu()
        return found

    def _go_on(self) -> None:
        kept = checkpoint.read(self._job.work, self._job.owner)
        if kept is None:
            return
        self._state, tensors = kept
        with torch.no_grad():
            for name, tensor in self._kept().items():
                tensor.copy_(torch.from_numpy(tensors[name]))
        self._tell.log(f"Goes on from step {self._state.step} of {len(self._plan)}.")

    def _kept(self) -> dict[str, Tensor]:
        return {
            "values": self._values, "first": self._first, "second": self._second,
            "best": self._best,
        }  # fmt: skip

    # steps

    def _steps(self) -> bool:
        """Whether it came to its end, and was not asked to end before."""
        state, written = self._state, time.monotonic()
        while state.step < len(self._plan) and state.worse < _PATIENCE:
            if self._tell.must_end():
                self._checkpoint()
                return False
            began = time.monotonic()
            self._step(self._plan[state.step], state.step)
            state.step += 1
            if state.step % self._look_every == 0 or state.step == len(self._plan):
                self._compare()
            state.seconds += time.monotonic() - began
            self._check_limits()
            self._tell_progress()
            if time.monotonic() - written > _CHECKPOINT_EVERY_S:
                self._checkpoint()
                written = time.monotonic()
        return True

    def _step(self, numbers: Sequence[int], step: int) -> None:
        self._adapter.grads.zero_()
        loss = 0.0
        for part in self._train.parts(numbers, self._part):
            loss += self._learn(part, numbers)
        if not math.isfinite(loss):
            raise UserError(
                Code.TRAINING_FAILED,
                f"The loss is no number any more at step {step + 1}: choose a lower learning rate "
                f"than {self._recipe.learning_rate:g}.",
            )
        self._update(step)
        self._state.loss = loss
        self._state.tokens += sum(self._train.sizes[i] for i in numbers)

    def _learn(self, part: batches.Part, numbers: Sequence[int]) -> float:
        """The part's share of the step's loss; its gradient is added up."""
        if self._recipe.objective == "dpo":
            sums = self._sums(self._train, part, learns=True)
            loss = self._preference(sums, part, self._references[0]) / len(numbers)
        else:
            found, _ = self._decoder.logprobs(self._train.rows, part, learns=True)
            loss = -found.sum() / self._train.learned(numbers)
        loss.backward()
        return float(loss.detach())

    def _sums(
        self, examples: Examples, part: batches.Part, *, adapted: bool = True, learns: bool = False
    ) -> Tensor:
        """What each row's answer is given, as a whole."""
        found, whose = self._decoder.logprobs(examples.rows, part, adapted=adapted, learns=learns)
        return torch.zeros(len(part.rows), device=found.device).index_add(0, whose, found)

    def _preference(self, sums: Tensor, part: batches.Part, reference: Tensor | None) -> Tensor:
        """DPO's loss (sigmoid), added up over the part's pairs."""
        if reference is None:
            raise RuntimeError("there are no references")
        moved = sums - reference[list(part.rows)].to(sums.device)
        margin = BETA * (moved[0::2] - moved[1::2])
        return -torch.nn.functional.logsigmoid(margin).sum()

    def _update(self, step: int) -> None:
        """AdamW without decay, of everything at once."""
        rate = recipe.rate_at(self._recipe, step, len(self._plan))
        one, two = _BETAS
        with torch.no_grad():
            grads = self._adapter.grads
            grads.mul_(torch.clamp(_MOST_NORM / (grads.norm() + 1e-6), max=1.0))
            self._first.lerp_(grads, 1 - one)
            self._second.mul_(two).addcmul_(grads, grads, value=1 - two)
            divisor = (self._second / (1 - two ** (step + 1))).sqrt_().add_(_EPSILON)
            self._values.addcdiv_(self._first, divisor, value=-rate / (1 - one ** (step + 1)))

    def _compare(self) -> None:
        """Looks at the held-out examples, and keeps what does best on them."""
        state = self._state
        state.held_out = self._look() if self._held_out.groups else None
        score = state.loss if state.held_out is None else state.held_out
        if state.best_loss is None or state.held_out is None or score < state.best_loss:
            lowered = state.best_loss is None or score < state.best_loss * (1 - _GAIN)
            state.worse = 0 if lowered or state.held_out is None else state.worse + 1
            state.best_loss, state.best_step = score, state.step
            self._best.copy_(self._values.detach())
        else:
            state.worse += 1

    def _look(self) -> float:
        examples = self._held_out
        numbers = range(len(examples.groups))
        whole = 0.0
        for part in examples.parts(numbers, self._part):
            if self._recipe.objective == "dpo":
                sums = self._sums(examples, part)
                whole += float(self._preference(sums, part, self._references[1]))
            else:
                whole -= float(self._decoder.logprobs(examples.rows, part)[0].sum())
        is_dpo = self._recipe.objective == "dpo"
        return whole / (len(numbers) if is_dpo else examples.learned(numbers))

    # what is told and kept

    def _tell_progress(self) -> None:
        state, steps = self._state, len(self._plan)
        figures: dict[str, Any] = {
            "step": state.step,
            "steps": steps,
            "loss": round(state.loss, 5),
            "tokens_per_s": round(state.tokens / state.seconds, 1),
            "seconds_left": round(state.seconds / state.step * (steps - state.step), 1),
        }
        if state.held_out is not None:
            figures["held_out_loss"] = round(state.held_out, 5)
        self._tell.progress(**figures)

    def _check_limits(self) -> None:
        state, spec = self._state, self._job.spec
        state.peak_bytes = max(state.peak_bytes, _peak_bytes())
        most_s, most_bytes = spec.get("max_seconds"), spec.get("max_memory_bytes")
        if most_s is not None and state.seconds > most_s:
            self._checkpoint()
            raise UserError(
                Code.LIMIT_REACHED,
                f"Training reached its limit of {most_s:g} s at step {state.step} of "
                f"{len(self._plan)}: allow more time, or fewer epochs.",
            )
        if most_bytes is not None and state.peak_bytes > most_bytes:
            raise UserError(
                Code.LIMIT_REACHED,
                f"Training took {state.peak_bytes / 2**20:,.0f} MiB and may use "
                f"{most_bytes / 2**20:,.0f} MiB: allow more memory, or fewer tokens an example.",
            )

    def _checkpoint(self) -> None:
        kept = {name: tensor.detach().cpu().numpy() for name, tensor in self._kept().items()}
        checkpoint.write(self._job.work, self._job.owner, self._state, kept)

    def _result(self) -> Mapping[str, Any]:
        job, state = self._job, self._state
        self._tell_outcome()
        factors = [
            (layer, linear, a.numpy(), b.numpy())
            for layer, linear, a, b in self._adapter.factors(self._best.cpu())
        ]
        peft_folder.write(job.work / FOLDER, self._recipe, factors, job.manifest)
        checkpoint.remove(job.work)
        has_held_out = bool(self._held_out.groups)
        return {
            "folder": FOLDER,
            "held_out_loss": state.best_loss if has_held_out else None,
            "held_out_loss_before": state.held_out_before,
            "train_loss": state.loss,
            "best_step": state.best_step,
            "steps": state.step,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 1),
            "peak_memory_bytes": max(state.peak_bytes, _peak_bytes()),
            "left_out": {"too_long": job.train.too_long, "unusable": job.train.unusable},
            "manifest": job.manifest,
        }

    def _tell_outcome(self) -> None:
        state = self._state
        if state.worse >= _PATIENCE:
            self._tell.log(f"Ended at step {state.step}: the held-out loss falls no more.")
        before, best = state.held_out_before, state.best_loss
        if before is not None and best is not None and best >= before:
            self._tell.log("The adapter does no better than its base on the held-out examples.")


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _is_no_memory(error: Exception) -> bool:
    return any(words in str(error).lower() for words in _NO_MEMORY)
