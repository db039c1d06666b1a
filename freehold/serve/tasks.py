"""What goes on beside requests, until the gateway stops."""

import asyncio


async def ended(task: asyncio.Task[None] | None) -> None:
    """Cancels it, if it was begun, and waits for it; how it ended is nobody's concern any more."""
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
