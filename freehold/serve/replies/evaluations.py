from typing import Any

from pydantic import BaseModel

from freehold.serve.replies.jobs import Job


class Evaluation(BaseModel):
    """`result` is all that was found, with the answers: null before the job's end, or where
    another gateway has it. docs/adapt/eval.md says what its figures mean."""

    job: Job
    result: dict[str, Any] | None
