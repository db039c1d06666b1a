"""What ends a training and what is told then, whichever trainer does it."""

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from freehold.adapt.training.as_job import FOLDER, Job, Tell
from freehold.adapt.training.checkpoint import State
from freehold.adapt.training.recipe import Recipe
from freehold.core.errors import Code, UserError

PATIENCE = 3  # looks at the held-out examples that may follow each other without gain
_GAIN = 0.002  # of the loss, that counts as one
MOST_HELD_OUT = 512
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Says so in a sentence, however PyTorch says it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_it = any(words in str(error).lower() for words in _NO_MEMORY)
        if not isinstance(error, MemoryError) and not is_it:
            raise
        raise UserError(
            Code.LIMIT_REACHED,
            "The machine has too little memory for this training: allow fewer tokens an "
            "example, train with the base in 4 bits, or end something else.",
        ) from error


def looked(state: State, held_out: float | None) -> bool:
    """Takes a look at the held-out examples down; whether it is the best so far."""
    state.held_out = held_out
    score = state.loss if held_out is None else held_out
    if state.best_loss is None or held_out is None or score < state.best_loss:
        lowered = state.best_loss is None or score < state.best_loss * (1 - _GAIN)
        state.worse = 0 if lowered or held_out is None else state.worse + 1
        state.best_loss, state.best_step = score, state.step
        return True
    state.worse += 1
    return False


def progress(state: State, steps: int) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "step": state.step,
        "steps": steps,
        "loss": round(state.loss, 5),
        "tokens_per_s": round(state.tokens / state.seconds, 1),
        "seconds_left": round(state.seconds / state.step * (steps - state.step), 1),
    }
    if state.held_out is not None:
        figures["held_out_loss"] = round(state.held_out, 5)
    return figures


def no_number(step: int, recipe: Recipe) -> UserError:
    return UserError(
        Code.TRAINING_FAILED,
        f"The loss is no number any more at step {step + 1}: choose a lower learning rate than "
        f"{recipe.learning_rate:g}.",
    )


def over_limits(state: State, spec: Mapping[str, Any], steps: int) -> UserError | None:
    """Why it may not go on, if so."""
    state.peak_bytes = max(state.peak_bytes, _peak_bytes())
    most_s, most_bytes = spec.get("max_seconds"), spec.get("max_memory_bytes")
    if most_s is not None and state.seconds > most_s:
        return UserError(
            Code.LIMIT_REACHED,
            f"Training reached its limit of {most_s:g} s at step {state.step} of {steps}: allow "
            "more time, or fewer epochs.",
        )
    if most_bytes is not None and state.peak_bytes > most_bytes:
        return UserError(
            Code.LIMIT_REACHED,
            f"Training took {state.peak_bytes / 2**20:,.0f} MiB and may use "
            f"{most_bytes / 2**20:,.0f} MiB: allow more memory, or fewer tokens an example.",
        )
    return None


def outcome(tell: Tell, state: State) -> None:
    if state.worse >= PATIENCE:
        tell.log(f"Ended at step {state.step}: the held-out loss falls no more.")
    before, best = state.held_out_before, state.best_loss
    if before is not None and best is not None and best >= before:
        tell.log("The adapter does no better than its base on the held-out examples.")


def result_of(job: Job, state: State, *, has_held_out: bool) -> dict[str, Any]:
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


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
