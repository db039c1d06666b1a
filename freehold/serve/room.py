"""Room for bodies: how many of their bytes may be in hand at once, of all requests.

A body is in hand from its first byte until its request has ended, and is parsed and
written again for the engine meanwhile, so it costs a few times its size. One body
always finds room when there is no other.
"""

from freehold.core.errors import Code, UserError

_SMALL_BYTES = 64 * 1024  # counted, never refused: large ones shall not keep small ones out


class Room:
    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held = 0

    def check(self, announced: int) -> None:
        """Refuses a body that will find no room before a byte of it is read."""
        if announced > _SMALL_BYTES and self._held and self._held + announced > self._most:
            raise _full()

    def take(self, part: int, whole: int) -> None:
        """Counts a further part of a body that is `whole` bytes long so far, also when
        that raises `UserError(OVERLOADED)`; whoever took gives back."""
        self._held += part
        if whole > _SMALL_BYTES and self._held > max(self._most, whole):
            raise _full()

    def give_back(self, size: int) -> None:
        self._held -= size


def _full() -> UserError:
    return UserError(
        Code.OVERLOADED, "Too many large bodies are in hand: try again.", retry_after_s=2
    )
