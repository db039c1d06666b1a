from pydantic import BaseModel


class KeptContent(BaseModel):
    """`asked` and `answered` as they were sent, `cut` when one of them was longer."""

    request: str
    asked: str
    answered: str
    cut: bool


class RemovedContent(BaseModel):
    request: str
    removed: bool
