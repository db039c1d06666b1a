"""Who is served next: a queue fair between tenants, with no clock and no process."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from freehold.core.binding import Priority

Waiter = TypeVar("Waiter")


class FairQueue(Generic[Waiter]):
    """Tenants take turns, each tenant's requests keep their order, and batch work
    waits until nobody interactive does."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._lines: dict[Priority, OrderedDict[str, deque[Waiter]]] = {
            priority: OrderedDict() for priority in Priority
        }

    def __len__(self) -> int:
        return self._size

    @property
    def is_full(self) -> bool:
        return self._size >= self._limit

    def push(self, tenant_id: str, priority: Priority, waiter: Waiter) -> None:
        self._lines[priority].setdefault(tenant_id, deque()).append(waiter)
        self._size += 1

    def pop(self) -> Waiter:
        """The next waiter. Raises `IndexError` when nobody waits."""
        for priority in (Priority.INTERACTIVE, Priority.BATCH):
            lines = self._lines[priority]
            if lines:
                tenant_id, line = next(iter(lines.items()))
                waiter = line.popleft()
                self._size -= 1
                if line:
                    lines.move_to_end(tenant_id)
                else:
                    del lines[tenant_id]
                return waiter
        raise IndexError("nobody waits")

    def remove(self, tenant_id: str, priority: Priority, waiter: Waiter) -> None:
        """Forgets a waiter that gave up; nothing happens when it was served."""
        line = self._lines[priority].get(tenant_id)
        if line is not None and waiter in line:
            line.remove(waiter)
            self._size -= 1
            if not line:
                del self._lines[priority][tenant_id]
