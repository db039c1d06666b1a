"""A decision as settings: the file that `freehold up -f` starts what was decided with, and in
words what no setting says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import yaml
from pydantic import ValidationError

from freehold.catalog import known
from freehold.config.schema import Settings
from freehold.config.workload import workload_from
from freehold.core.errors import Fault
from freehold.core.plan import Precision, Way, Workload
from freehold.decide.ways.options import canonical

# Where providers answer in OpenAI's shape, by their documentation (read in November 2026).
_ENDPOINTS: Mapping[str, str] = {
    "Anthropic": "https://api.anthropic.com/v1",
    "Cerebras": "https://api.cerebras.ai/v1",
    "Cohere": "https://api.cohere.ai/compatibility/v1",
    "DeepSeek": "https://api.deepseek.com/v1",
    "Fireworks AI": "https://api.fireworks.ai/inference/v1",
    "Google (Gemini API)": "https://generativelanguage.googleapis.com/v1beta/openai",
    "Groq": "https://api.groq.com/openai/v1",
    "Mistral": "https://api.mistral.ai/v1",
    "OVHcloud AI Endpoints": "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
    "OpenAI": "https://api.openai.com/v1",
    "Together AI": "https://api.together.xyz/v1",
}
_SECRETS = "/run/secrets"
_WIDTH = 96


@dataclass(frozen=True, slots=True)
class Deployment:
    """`steps` are to be done before the start, `unsaid` what the settings cannot express."""

    text: str
    settings: dict[str, Any]
    steps: tuple[str, ...]
    unsaid: tuple[str, ...]


def deployment(
    content: Mapping[str, Any], decision_id: str | None, stored: Sequence[str] = ()
) -> Deployment:
    """`stored` are the models that are there already. Settings that this version does not take
    are a fault of ours: they are never written."""
    written = content["workload"]
    workload = workload_from(written["written"], written["name"])
    made = _Made(content, workload, stored)
    settings = made.settings()
    steps, unsaid = tuple(made.steps()), tuple(made.unsaid())
    text = _commented(_header(content, decision_id, steps, unsaid))
    text += yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    try:
        Settings.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as error:
        raise Fault(f"a deployment file that is no settings file: {error}") from None
    return Deployment(text, settings, steps, unsaid)


def as_plain(made: Deployment, decision_id: str | None) -> dict[str, Any]:
    return {
        "decision": decision_id,
        "text": made.text,
        "settings": made.settings,
        "steps": list(made.steps),
        "not_expressed": list(made.unsaid),
    }


class _Made:
    def __init__(
        self, content: Mapping[str, Any], workload: Workload, stored: Sequence[str]
    ) -> None:
        self.content, self.workload = content, workload
        self.option = content["option"]
        self.way = Way(self.option["way"])
        # A managed endpoint is somebody else's machine, which answers as an upstream would.
        self.is_hosted = self.way not in (Way.API, Way.MANAGED)
        self.buys = self.way in (Way.API, Way.MIXED)
        self.replicas = (content["sized"] or {"replicas": 1})["replicas"]
        on = content.get("accelerator") or {"kind": "gpu", "has_bf16": True}
        self.is_gpu, self.has_bf16 = on["kind"] == "gpu", on["has_bf16"]
        wanted = canonical(self.option["model"])
        # What the catalogue has are files for llama.cpp and the shared-base engine.
        catalogue = () if self.is_gpu else (each.name for each in known.every())
        alike = (each for each in (*stored, *catalogue) if canonical(each) == wanted)
        self.model = next(alike, self.option["model"])
        self.is_stored = self.model in stored

    def settings(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        prices: dict[str, Any] = {}
        if self.is_hosted:
            made["models"] = [self.model]
            made["engines"] = self._engines()
            if machine := self._machine():
                prices["machine"] = machine
        if self.buys and self._endpoint is not None:
            made["upstreams"] = [self._upstream()]
            prices["models"] = [self._price()]
        if prices:
            made["prices"] = prices
        return made

    def _engines(self) -> dict[str, Any]:
        context, precision = self.content["context"], self.option["precision"]
        if self.is_gpu:
            return {"default": "vllm", "vllm": self._vllm(context)}
        made: dict[str, Any] = {
            "default": "auto",
            "llama_cpp": {"context_length": max(context, 128)},
            "openvino": {"context_length": max(context, 128)},
        }
        if precision in ("int8", "int4"):
            made["openvino"]["weights"] = precision
        if self.workload.tenants_with_adapters:
            made["openvino"]["max_rank"] = self.workload.adapter_rank
        return made

    def _vllm(self, context: int) -> dict[str, Any]:
        made: dict[str, Any] = {
            "gpus": self.option["accelerators_a_replica"],
            "context_length": max(context, 128),
            "dtype": self._dtype,
        }
        if self.workload.tenants_with_adapters:
            made["max_rank"] = self.workload.adapter_rank
            made["max_adapters"] = max(self.workload.tenants_with_adapters, 8)
        return made

    @property
    def _dtype(self) -> str:
        if self.option["precision"] != Precision.BF16:
            return "auto"  # as the checkpoint says
        return "bfloat16" if self.has_bf16 else "float16"

    def _machine(self) -> dict[str, Any]:
        """Of one of the machines, as each has a gateway with these settings."""
        told = dict(self.content["machine"] or {})
        for name in ("per_hour", "purchase", "watts", "per_month"):
            if name in told:
                told[name] = round(told[name] / self.replicas, 6)
        return told if len(told) > 1 else {}  # how busy alone says nothing of its cost

    @property
    def _endpoint(self) -> str | None:
        return _ENDPOINTS.get(self.option["provider"] or "")

    @property
    def _bought(self) -> str:
        name = self.option["model"] if self.way is Way.API else self.option["details"]["peaks"]
        return str(name)

    @property
    def secret(self) -> str:
        """The file of the API's key: its name, and never what is in it."""
        words = "".join(c if c.isalnum() else "_" for c in self.option["provider"].lower())
        return f"{_SECRETS}/{words.strip('_')}_api_key"

    def _upstream(self) -> dict[str, Any]:
        provider = "".join(c if c.isalnum() else "-" for c in self.option["provider"].lower())
        return {
            "name": provider.strip("-"),
            "base_url": self._endpoint,
            "api_key_file": self.secret,
            "models": [{"alias": self._bought, "upstream_name": self._bought}],
        }

    def _price(self) -> dict[str, Any]:
        """For a million tokens, in the currency of the plan."""
        dollar = self.content["assumptions"]["for_a_dollar"]["value"]
        told = {
            each["what"].partition(" of ")[0]: round(each["usd"] * dollar, 9)
            for each in self.content["prices"]
            if each["each"] == "million tokens"
        }
        made = {"model": self._bought, "input": told["prompts"], "output": told["answers"]}
        if "cached prompts" in told:
            made["cached"] = told["cached prompts"]
        return made

    def steps(self) -> Iterator[str]:
        option = self.option
        if self.way is Way.RENTED:
            where = " ".join(filter(None, (option["provider"], option["region"])))
            yield f"rent {option['instance']} at {where} ({option['term']})"
        if self.way in (Way.OWNED, Way.MIXED) and option["details"].get("base") != Way.AT_HAND:
            count = self.replicas * option["accelerators_a_replica"]
            yield f"have {count} x {option['accelerator']} in your machines"
        if self.is_hosted and not self.is_stored:
            found = None if self.is_gpu else known.find(self.model)
            if found is not None:
                yield f"`{found.pull_command}`"
            else:
                form = "a checkpoint in safetensors, " if self.is_gpu else ""
                yield (
                    f"`freehold model pull hf:… --name {self.model}`, {form}from where it is "
                    "published"
                )
        if self.buys and self._endpoint is not None:
            yield f"put the key of {option['provider']} into the file {self.secret}"
        alone = "" if self.is_hosted else " --no-local-models"
        yield f"`freehold up -f FILE{alone}` with this file"

    def unsaid(self) -> Iterator[str]:
        option = self.option
        if self.is_hosted and self.replicas > 1:
            yield (
                f"{self.replicas} replicas are planned, and a gateway starts one of a model. "
                "Start this file on as many machines, with `database.url` of one PostgreSQL in "
                "each, and spread requests over them with what you have for that. The machine's "
                "price here is that of one."
            )
        if self.is_hosted and self.is_gpu and option["precision"] != Precision.BF16:
            yield (
                f"Weights in {option['precision']}: vLLM takes the format of the checkpoint, so "
                "pull one that was published in it."
            )
        if self.is_hosted and not self.is_gpu and option["precision"] == "bf16":
            yield "Weights in bf16: engines on processors keep them in fewer bits, or in float32."
        if self.way is Way.RENTED and "spot" in (option["term"] or ""):
            yield (
                "The spare machine that spot capacity needs beside: rent it too; its price is in "
                "the machine's here."
            )
        if self.way is Way.MIXED:
            yield (
                f"The peaks: requests go to {option['provider']} when they name {self._bought}, "
                "and never by themselves when the own machines are busy."
            )
        if self.buys and self._endpoint is None:
            yield (
                f"The address of {option['provider']}, which is of your account: add an entry to "
                f"`upstreams` for {self._bought}, and its price to `prices.models`."
            )
        if self.way is Way.MANAGED:
            yield (
                f"The endpoint at {option['provider']} ({option['instance']}), which is made "
                f"there: add its address to `upstreams`, with {option['model']} as its model."
            )
        yield from self._unsaid_of_work()

    def _unsaid_of_work(self) -> Iterator[str]:
        content, work = self.content, self.workload
        if (content["sized"] or {}).get("zones", 1) > 1:
            yield f"The {content['sized']['zones']} zones that the machines stand in."
        if work.embedding is not None:
            yield "The embeddings of the workload: add a model or an upstream for them."
        if work.tuning is not None:
            yield "The training runs: adapters are added with `freehold adapter add`."
        if (
            work.rules.residency
            or work.rules.certifications
            or work.rules.retention_days is not None
        ):
            yield (
                "The rules (where data may be, certificates, how long they are kept): they were "
                "judged when it was decided, and no setting keeps them."
            )
        dollar = content["assumptions"]["for_a_dollar"]["value"]
        if dollar != 1:
            yield (
                f"The currency: prices are in the plan's, at {dollar:g} for a dollar: set "
                "`currency`."
            )


def _header(
    content: Mapping[str, Any],
    decision_id: str | None,
    steps: Sequence[str],
    unsaid: Sequence[str],
) -> list[str]:
    name = content["workload"]["name"]
    whence = f"decision {decision_id}" if decision_id else "a plan that was not recorded"
    lines = [f"{name}: {content['option']['id']}, by {whence}, planned {content['planned_at']}."]
    lines += [f"{number}. {step}" for number, step in enumerate(steps, 1)]
    if unsaid:
        lines.append("What these settings cannot say:")
        lines += [f"- {each}" for each in unsaid]
    return lines


def _commented(lines: Sequence[str]) -> str:
    """No text of others gets out of its comment."""
    plain = ("".join(c if c.isprintable() else " " for c in line) for line in lines)
    wrapped = (part for line in plain for part in wrap(line, _WIDTH, subsequent_indent="  "))
    return "".join(f"# {line}\n" for line in wrapped)
