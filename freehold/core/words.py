"""Figures as people say them."""


def counted(count: int, what: str) -> str:
    """`what` is the word for one."""
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def lasting(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h"


def size(count: float) -> str:
    """Of bytes."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"
