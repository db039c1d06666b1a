"""Which licences allow commercial use, and the gate that asks."""

from dataclasses import replace

from freehold.core.errors import Code, UserError
from freehold.core.model import Licence

# SPDX id -> whether it permits commercial use without a condition on the user.
# LicenseRef-* are the vendors' own: Llama's and Gemma's carry use policies or a
# threshold of users, which only the company's lawyers can say are met.
_COMMERCIAL: dict[str, bool | None] = {
    "Apache-2.0": True,
    "MIT": True,
    "BSD-3-Clause": True,
    "CC-BY-4.0": True,
    "CC-BY-SA-4.0": True,
    "OpenRAIL": None,
    "BigScience-BLOOM-RAIL-1.0": None,
    "CC-BY-NC-4.0": False,
    "CC-BY-NC-SA-4.0": False,
    "LicenseRef-Llama-2": None,
    "LicenseRef-Llama-3": None,
    "LicenseRef-Llama-3.1": None,
    "LicenseRef-Llama-3.2": None,
    "LicenseRef-Llama-3.3": None,
    "LicenseRef-Gemma": None,
    "LicenseRef-Mistral-Research": False,
    "LicenseRef-Qwen-Research": False,
}
_BY_LOWER = {name.lower(): name for name in _COMMERCIAL}


def named(text: str | None) -> Licence:
    """The licence of this name; one that nobody listed counts as unknown."""
    if not text:
        return Licence("NOASSERTION", None)
    spdx = _BY_LOWER.get(text.strip().lower())
    if spdx is None:
        return Licence(text.strip()[:80], None)
    return Licence(spdx, _COMMERCIAL[spdx])


def agreed(said: list[str]) -> Licence:
    """One licence from what catalog, file and source say; a contradiction is unknown."""
    found = {named(text).spdx: named(text) for text in said if text}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        return named(None)
    return Licence("NOASSERTION (" + " or ".join(sorted(found)) + ")", None)


def gate(name: str, licence: Licence, reason: str | None) -> Licence:
    """The licence with the recorded reason, where one is needed. Raises
    `LICENCE_NOT_ACCEPTED` when it is needed and was not given."""
    if licence.commercial_use:
        return licence
    if reason and reason.strip():
        return replace(licence, waiver=reason.strip()[:500])
    what = (
        "forbids commercial use"
        if licence.commercial_use is False
        else "sets conditions or is unknown"
    )
    raise UserError(
        Code.LICENCE_NOT_ACCEPTED,
        f"{name} is under {licence.spdx}, which {what}: read it, then repeat with "
        '--accept-licence "why this use is allowed".',
    )
