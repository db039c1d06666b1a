"""What an evaluation measured, without a text of what was asked, answered or learned from."""

from collections.abc import Mapping, Sequence
from typing import Any

_AS_THEY_ARE = (
    "summary", "suite", "candidate", "incumbent", "measures", "judged", "probes_compared",
    "unanswered", "errors", "tokens_in", "tokens_out", "requests", "seconds", "cost", "currency",
    "held_out_loss",
)  # fmt: skip


def figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Of a result as `result.py` makes it. What is not named here stays out, as do the names of
    classes: they are answers."""
    regression, probed = result["regression"], result["probed"]
    told = {name: result[name] for name in _AS_THEY_ARE if name in result}
    return told | {
        "classes": [
            {
                "alias": each["alias"],
                "classes": len(each["labels"]),
                "macro_recall": each["macro_recall"],
            }
            for each in result["classes"]
        ],
        "regression": regression | {"failed": len(regression["failed"])},
        "probes": [
            {name: each[name] for name in ("alias", "refused", "answered")}
            for each in result["probes"]
        ],
        "canaries": [
            {name: each[name] for name in ("alias", "extracted")} for each in result["canaries"]
        ],
        "triggers": _tried(result["triggers"]),
        "probed": probed
        and {
            "prompts": probed["prompts"],
            "phrases": _tried(probed["phrases"]),
            "extracted": probed["extracted"]
            and {name: probed["extracted"][name] for name in ("secrets", "candidate_alone")},
        },
    }


def _tried(phrases: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    suspicious = sum(bool(each["sides"][0]["is_suspicious"]) for each in phrases)
    return {"tried": len(phrases), "suspicious": suspicious}
