"""One request on its way through the engine: its tokens, and how far they are computed."""

from dataclasses import dataclass, field

from freehold.core.binding import Priority
from freehold.engines.openvino.blocks import Chain


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` is the prompt when made, and grows by each token that the model chose.

    Only the scheduler changes it. `computed` tokens have keys and values in `blocks`; of
    a running sequence, one token more is known than computed, unless it is being filled.
    """

    id: str
    tenant: str
    tokens: list[int]
    max_total: int  # tokens, prompt and answer together
    adapter: str | None = None  # its digest
    salt: str = ""  # who may find its blocks; empty: nobody
    priority: Priority = Priority.INTERACTIVE

    prompt_length: int = field(init=False)
    arrival: int = field(init=False, default=0)
    computed: int = field(init=False, default=0)
    blocks: list[int] = field(init=False, default_factory=list)
    chain: Chain | None = field(init=False, default=None)
    cached_tokens: int = field(init=False, default=0)  # of the prompt, when first admitted
    admissions: int = field(init=False, default=0)
    turn: int = field(init=False, default=0)  # tokens chosen since it was last admitted
    due: int = field(init=False, default=0)  # the filling step that it should be done by

    def __post_init__(self) -> None:
        self.tokens = list(self.tokens)
        self.prompt_length = len(self.tokens)

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_length :]

    @property
    def pending(self) -> int:
        """Tokens known but not computed."""
        return len(self.tokens) - self.computed

    @property
    def is_full(self) -> bool:
        return len(self.tokens) >= self.max_total
