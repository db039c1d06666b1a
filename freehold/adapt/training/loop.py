"""From examples to a finished adapter, step by step, so that it can end and go on anywhere."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from freehold.adapt.training import batches, checkpoint, ending, peft_folder, recipe
from freehold.adapt.training.adapter import Adapter
from freehold.adapt.training.as_job import FOLDER, Job, Tell
from freehold.adapt.training.base import load
from freehold.adapt.training.checkpoint import State
from freehold.adapt.training.decoder import Decoder
from freehold.adapt.training.ending import MOST_HELD_OUT, PATIENCE
from freehold.adapt.training.recipe import BETA
from freehold.adapt.training.rows import Read, Row
from freehold.engines.cores import usable_cores

_CHECKPOINT_EVERY_S = 60.0
_MOST_NORM = 1.0  # of a step's gradient
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


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
        self._held_out = Examples(job.held_out, MOST_HELD_OUT)
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
        with ending.out_of_memory():
            self._prepare()
            return self._result() if self._steps() else None

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
        while state.step < len(self._plan) and state.worse < PATIENCE:
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
            self._tell.progress(**ending.progress(state, len(self._plan)))
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
            raise ending.no_number(step, self._recipe)
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
        if ending.looked(self._state, self._look() if self._held_out.groups else None):
            self._best.copy_(self._values.detach())

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

    def _check_limits(self) -> None:
        error = ending.over_limits(self._state, self._job.spec, len(self._plan))
        if error is not None:
            self._checkpoint()
            raise error

    def _checkpoint(self) -> None:
        kept = {name: tensor.detach().cpu().numpy() for name, tensor in self._kept().items()}
        checkpoint.write(self._job.work, self._job.owner, self._state, kept)

    def _result(self) -> Mapping[str, Any]:
        job = self._job
        ending.outcome(self._tell, self._state)
        factors = [
            (layer, linear, a.numpy(), b.numpy())
            for layer, linear, a, b in self._adapter.factors(self._best.cpu())
        ]
        peft_folder.write(job.work / FOLDER, self._recipe, factors, job.manifest)
        checkpoint.remove(job.work)
        return ending.result_of(job, self._state, has_held_out=bool(self._held_out.groups))
