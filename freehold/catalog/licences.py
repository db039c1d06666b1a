"""Which licences allow commercial use, and the gate that asks."""

from dataclasses import replace

from freehold.core.errors import Code, UserError
from freehold.core.model import Licence

_UNKNOWN = "NOASSERTION"
# SPDX id -> whether it permits commercial use without a condition on the user.
# LicenseRef-* are the vendors' own: Llama's and Gemma's carry use policies or a
# threshold of users, which only the company's lawyers can say are met.
_COMMERCIAL: dict[str, bool | None] = {
    "Apache-2.0": True,
    "MIT": True,
    "BSD-2-Clause": True,
    "BSD-3-Clause": True,
    "CC0-1.0": True,
    "CC-BY-4.0": True,
    "CC-BY-SA-4.0": True,
    "CDLA-Permissive-2.0": True,
    "Unlicense": True,
    "GPL-3.0-only": None,
    "AGPL-3.0-only": None,
    "LicenseRef-OpenRAIL": None,
    "LicenseRef-BigScience-BLOOM-RAIL-1.0": None,
    "LicenseRef-Llama-2": None,
    "LicenseRef-Llama-3": None,
    "LicenseRef-Llama-3.1": None,
    "LicenseRef-Llama-3.2": None,
    "LicenseRef-Llama-3.3": None,
    "LicenseRef-Llama-4": None,
    "LicenseRef-Gemma": None,
    "LicenseRef-Qwen": None,
    "LicenseRef-DeepSeek": None,
    "CC-BY-NC-4.0": False,
    "CC-BY-NC-SA-4.0": False,
    "CC-BY-NC-ND-4.0": False,
    "LicenseRef-Mistral-Research": False,
    "LicenseRef-Qwen-Research": False,
}
# How model hubs and converters write the same licences.
_ALIASES = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "cc-by-nc": "CC-BY-NC-4.0",
    "gpl-3.0": "GPL-3.0-only",
    "agpl-3.0": "AGPL-3.0-only",
    "openrail": "LicenseRef-OpenRAIL",
    "bigscience-bloom-rail-1.0": "LicenseRef-BigScience-BLOOM-RAIL-1.0",
    "llama2": "LicenseRef-Llama-2",
    "llama3": "LicenseRef-Llama-3",
    "llama3.1": "LicenseRef-Llama-3.1",
    "llama3.2": "LicenseRef-Llama-3.2",
    "llama3.3": "LicenseRef-Llama-3.3",
    "llama4": "LicenseRef-Llama-4",
    "gemma": "LicenseRef-Gemma",
    "deepseek": "LicenseRef-DeepSeek",
    "qwen": "LicenseRef-Qwen",
    "mrl": "LicenseRef-Mistral-Research",
    "qwen-research": "LicenseRef-Qwen-Research",
}
_BY_LOWER = {**{name.lower(): name for name in _COMMERCIAL}, **_ALIASES}


def named(text: str | None) -> Licence:
    """The licence of this name; one that nobody listed counts as unknown."""
    if not text:
        return Licence(_UNKNOWN, None)
    spdx = _BY_LOWER.get(text.strip().lower())
    if spdx is None:
        return Licence(text.strip()[:80], None)
    return Licence(spdx, _COMMERCIAL[spdx])


def agreed(said: list[str]) -> Licence:
    """One licence from what catalog, file and source say; a contradiction is unknown."""
    each = [named(text) for text in said if text]
    found = {licence.spdx: licence for licence in each}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        return named(None)
    return Licence(f"{_UNKNOWN} ({' or '.join(sorted(found))})", None)


def gate(name: str, licence: Licence, reason: str | None) -> Licence:
    """The licence with the recorded reason, where one is needed. Raises
    `LICENCE_NOT_ACCEPTED` when it is needed and was not given."""
    if licence.commercial_use:
        return licence
    if reason and reason.strip():
        return replace(licence, waiver=reason.strip()[:500])
    if licence.spdx.startswith(_UNKNOWN):
        what = f"The licence of {name} is unknown ({licence.spdx})"
    elif licence.commercial_use is False:
        what = f"{name} is under {licence.spdx}, which forbids commercial use"
    else:
        what = f"{name} is under {licence.spdx}, which sets conditions or is not known here"
    raise UserError(
        Code.LICENCE_NOT_ACCEPTED,
        f'{what}: read it, then repeat with --accept-licence "why this use is allowed".',
    )
