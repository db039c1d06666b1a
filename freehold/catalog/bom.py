"""A lineage as a CycloneDX ML-BOM (1.6, JSON): the same lineage always gives the same bytes."""

import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import freehold

Plain = dict[str, Any]
_NAMESPACE = uuid.UUID("6f1f8c2e-5a0b-5d53-9c55-2f0a3e6f8b11")


def bom(lineage: Plain) -> Plain:
    base, adapter, dataset = lineage["base"], lineage["adapter"], lineage["dataset"]
    served = _served(lineage)
    components = [each for each in (_base(base), _data(dataset)) if each is not None]
    made: Plain = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": _newest(lineage),
            "tools": {
                "components": [
                    {
                        "type": "application",
                        "name": "freehold",
                        "version": freehold.__version__,
                    }
                ]
            },
            "component": served,
            "properties": _properties(
                alias=lineage["alias"],
                environment=lineage["environment"],
                request=lineage["request"],
                since=lineage["since"],
                set_by=lineage["set_by"],
            ),
        },
        "components": components if adapter is not None else components[1:],
        "dependencies": _dependencies(served, components),
    }
    text = json.dumps(made, sort_keys=True, ensure_ascii=False)
    made["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, text)}"
    return made


def written(made: Plain) -> bytes:
    return json.dumps(made, sort_keys=True, indent=2, ensure_ascii=False).encode() + b"\n"


def _served(lineage: Plain) -> Plain:
    """The adapter with its base as its ancestor, or the base where there is none."""
    base, adapter = lineage["base"], lineage["adapter"]
    if adapter is None:
        found = _base(base) or {
            "type": "machine-learning-model",
            "bom-ref": "remote",
            "name": lineage["alias"],
        }
        return {**found, "modelCard": _card(lineage)}
    shown: Plain = {
        "type": "machine-learning-model",
        "bom-ref": adapter["digest"],
        "name": adapter["name"] or adapter["digest"],
        "version": adapter["digest"],
        "hashes": [_hash(adapter["digest"])],
        "modelCard": _card(lineage),
        "properties": _properties(
            config=adapter.get("config_digest"),
            weights=adapter.get("weights_digest"),
            tokenizer=adapter.get("tokenizer_digest"),
            template=adapter.get("template_digest"),
            rank=adapter.get("rank"),
            source=adapter.get("source"),
            recipe=adapter.get("recipe"),
            made_with=adapter.get("made_with"),
            signed_by=[each["by"] for each in adapter.get("signatures", ()) if each["holds"]],
            job=lineage["job"] and lineage["job"]["id"],
            trained_by=lineage["job"] and lineage["job"]["created_by"],
        ),
    }
    licence = (adapter.get("licences") or {}).get("adapter")
    if licence:
        shown["licenses"] = [_licence(str(licence))]
    if base is not None:
        shown["pedigree"] = {"ancestors": [_base(base)]}
    return shown


def _base(base: Plain | None) -> Plain | None:
    if base is None:
        return None
    shown: Plain = {
        "type": "machine-learning-model",
        "bom-ref": base["digest"],
        "name": base["name"] or base["digest"],
        "version": base["digest"],
        "hashes": [_hash(base["digest"])],
        "properties": _properties(
            source=base.get("source"),
            quantization=base.get("quantization"),
            tokenizer=base.get("tokenizer_digest"),
            template=base.get("template_digest"),
        ),
    }
    if base.get("licence"):
        shown["licenses"] = [_licence(base["licence"]["spdx"])]
    return shown


def _data(dataset: Plain | None) -> Plain | None:
    if dataset is None:
        return None
    shown: Plain = {
        "type": "data",
        "bom-ref": f"data:{dataset['digest']}",
        "name": dataset["name"] or dataset["digest"],
        "hashes": [_hash(dataset["digest"])],
    }
    if dataset["name"] is None:
        return shown
    return {
        **shown,
        "version": str(dataset["version"]),
        "licenses": [_licence(dataset["licence"])],
        "data": [
            {
                "type": "dataset",
                "name": dataset["name"],
                "description": dataset["origin"],
                "sensitiveData": dataset["findings"],
            }
        ],
        "properties": _properties(
            train=dataset["train"],
            held_out=dataset["held_out"],
            kind=dataset["kind"],
            accepted=dataset["accepted"],
            added_by=dataset["created_by"],
        ),
    }


def _card(lineage: Plain) -> Plain:
    dataset, adapter, base = lineage["dataset"], lineage["adapter"], lineage["base"] or {}
    parameters: Plain = {"task": "text-generation"}
    if base.get("architecture"):
        parameters["architectureFamily"] = base["architecture"]
    if adapter is not None:
        parameters["approach"] = {"type": "supervised"}
    if dataset is not None:
        parameters["datasets"] = [{"ref": f"data:{dataset['digest']}"}]
    card: Plain = {"modelParameters": parameters}
    metrics = list(_metrics(lineage))
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    passed = [
        f"{each['id']} {'passed' if each['passed'] else 'failed'}" for each in lineage["gates"]
    ]
    let_in = [
        f"{each['id']} to {each['environment']} by {each['made_by']}"
        + (f", forced: {each['forced']}" if each["forced"] else "")
        for each in lineage["promotions"]
    ]
    properties = _properties(gate=passed, promotion=let_in)
    if properties:
        card["properties"] = properties
    return card


def _metrics(lineage: Plain) -> Iterator[Plain]:
    for gate in lineage["gates"]:
        for verdict in gate["verdicts"]:
            yield {
                "type": verdict["name"],
                "value": f"{verdict['found']} (needed: {verdict['needed']})",
                "slice": f"{gate['suite']}, {gate['environment']}",
            }
    for name, value in ((lineage["job"] or {}).get("figures") or {}).items():
        if "loss" in name:
            yield {"type": name, "value": str(value), "slice": "training"}


def _dependencies(served: Plain, components: list[Plain]) -> list[Plain]:
    needed = sorted({each["bom-ref"] for each in components} - {served["bom-ref"]})
    found = [{"ref": served["bom-ref"], "dependsOn": needed}] if needed else []
    return found + [{"ref": each} for each in needed]


def _licence(spdx: str) -> Plain:
    """An expression takes ids, `LicenseRef-…` and both joined; anything else is a name."""
    is_expression = all(part.replace(".", "-").replace("-", "a").isalnum() for part in spdx.split())
    return {"expression": spdx} if is_expression else {"license": {"name": spdx}}


def _hash(digest: str) -> Plain:
    return {"alg": "SHA-256", "content": digest.partition(":")[2]}


def _properties(**values: Any) -> list[Plain]:
    """Those that are known, in their order; of lists each."""
    found = []
    for name, value in sorted(values.items()):
        for each in value if isinstance(value, list) else [value]:
            if each not in (None, "", {}):
                text = each if isinstance(each, str) else json.dumps(each, sort_keys=True)
                found.append({"name": f"freehold:{name}", "value": text})
    return found


def _newest(lineage: Plain) -> str:
    """Of all that it tells of, so that it says when it was true and not when it was written."""
    times: list[str | None] = [lineage["since"] or lineage["at"]]
    for name in ("base", "adapter", "dataset", "job"):
        found = lineage[name] or {}
        times += [found.get(each) for each in ("added_at", "created_at", "ended_at", "removed_at")]
    times += [each["made_at"] for each in (*lineage["gates"], *lineage["promotions"])]
    return max((each for each in times if each is not None), key=datetime.fromisoformat)
