"""What follows when a key is used otherwise than before."""

from enum import StrEnum


class OnDeparture(StrEnum):
    """What somebody chose. `DEFAULT` leaves it to the tenant, and then to the settings."""

    DEFAULT = "default"
    NOTIFY = "notify"
    STEP_DOWN = "step-down"
    SUSPEND = "suspend"


class Restraint(StrEnum):
    """What is done to a key until somebody confirms its use. `STEPPED_DOWN` leaves it the
    use of models, at batch priority; `SUSPENDED` nothing."""

    STEPPED_DOWN = "stepped_down"
    SUSPENDED = "suspended"


_DONE = {
    OnDeparture.STEP_DOWN: Restraint.STEPPED_DOWN,
    OnDeparture.SUSPEND: Restraint.SUSPENDED,
}


def restraint_for(*chosen: OnDeparture) -> Restraint | None:
    """By the first who chose anything; None where it is only told."""
    decided = (each for each in chosen if each is not OnDeparture.DEFAULT)
    return _DONE.get(next(decided, OnDeparture.NOTIFY))
