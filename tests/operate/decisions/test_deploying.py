"""A decision as settings: every way gives a file that the settings' own schema reads, and what it
cannot say stands in it in words."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from freehold.config import load
from freehold.config.schema import Settings
from freehold.config.workload import workload_from
from freehold.operate.decisions.deploying import Deployment, deployment
from freehold.operate.decisions.planning import Planned, planned, recorded

_WORK = {
    "requests_per_day": "2M", "prompt": 800, "answer": 250, "horizon": "36 months",
    "models": ["gpt-5-nano", "qwen3-0.6b"],
}  # fmt: skip
_TODAY = date(2026, 11, 26)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return planned(tmp_path_factory.mktemp("home"), workload_from(_WORK, "bot"), _TODAY)


def _content(plan: Planned, way: str, home: Path, written: Any = None) -> dict[str, Any]:
    option = next(each.option.id for each in plan.plan.ranked if each.option.way == way)
    asked = {"workload": written or _WORK, "option": option, "today": _TODAY.isoformat()}
    return recorded(home, plan, asked)


def _settings(made: Deployment, tmp_path: Path) -> Settings:
    """As `freehold up -f` reads it."""
    file = tmp_path / "out.yaml"
    file.write_text(made.text)
    return load.settings(file, environ={})


@pytest.mark.parametrize("way", ["api", "managed", "rented", "owned", "mixed"])
def test_every_way_gives_settings_that_are_read_back(
    plan: Planned, way: str, tmp_path: Path
) -> None:
    made = deployment(_content(plan, way, tmp_path), "dec_1")
    settings = _settings(made, tmp_path)
    assert yaml.safe_load(made.text) == made.settings
    assert "by decision dec_1" in " ".join(made.text.replace("#", " ").split())
    assert made.steps[-1].startswith("`freehold up -f FILE")
    words = " ".join(made.text.replace("#", " ").split())
    assert all(each in words for each in (*made.steps, *made.unsaid)), "nothing is dropped"
    assert bool(settings.upstreams) == (way in ("api", "mixed"))
    assert bool(settings.models) == (way in ("rented", "owned", "mixed"))


def test_an_api_is_an_upstream_with_its_price_and_the_name_of_its_secret(
    plan: Planned, tmp_path: Path
) -> None:
    made = deployment(_content(plan, "api", tmp_path), None)
    (upstream,) = _settings(made, tmp_path).upstreams
    assert upstream.base_url == "https://api.openai.com/v1"
    assert upstream.api_key_file == "/run/secrets/openai_api_key"
    (price,) = _settings(made, tmp_path).prices.models
    assert (price.model, float(price.input), float(price.output)) == ("gpt-5-nano", 0.05, 0.4)
    assert "--no-local-models" in made.steps[-1]
    assert "a plan that was not recorded" in " ".join(made.text.replace("#", " ").split())


def test_own_machines_have_their_engine_context_format_and_price(
    plan: Planned, tmp_path: Path
) -> None:
    content = _content(plan, "owned", tmp_path)
    made = deployment(content, "dec_1")
    settings = _settings(made, tmp_path)
    assert settings.models == ("qwen3-0.6b",)
    assert settings.engines.default == "vllm"
    assert settings.engines.vllm.context_length == 1050
    assert settings.engines.vllm.gpus == content["option"]["accelerators_a_replica"]
    replicas = content["sized"]["replicas"]
    assert replicas > 1, "so that there is something that settings cannot say"
    assert any(f"{replicas} replicas are planned" in each for each in made.unsaid)
    machine = settings.prices.machine
    assert machine.purchase is not None
    assert float(machine.purchase) == pytest.approx(content["machine"]["purchase"] / replicas)
    assert 0 < machine.busy <= 1
    assert any("--name qwen3-0.6b" in each for each in made.steps)


def test_a_stored_model_is_not_fetched_again_and_one_of_the_catalogue_is_named(
    plan: Planned, tmp_path: Path
) -> None:
    content = _content(plan, "owned", tmp_path)
    stored = deployment(content, "dec_1", ["other", "qwen3-0.6b-instruct"])
    assert _settings(stored, tmp_path).models == ("qwen3-0.6b-instruct",)
    assert not any("pull" in each for each in stored.steps)
    here = content | {"accelerator": {"kind": "cpu", "has_bf16": False}}
    here["option"] = content["option"] | {"precision": "int8"}
    made = deployment(here, "dec_1")
    assert "`freehold model pull qwen3-0.6b`" in made.steps
    settings = _settings(made, tmp_path)
    assert (settings.engines.default, settings.engines.openvino.weights) == ("auto", "int8")


def test_what_the_work_needs_beside_is_said(plan: Planned, tmp_path: Path) -> None:
    written = {
        **_WORK, "rules": {"residency": ["eu"]}, "tuning": {"runs_per_month": 1, "tokens": "5M"},
        "embeddings": {"tokens_per_day": "1M"}, "adapters": {"tenants": 20, "rank": 32},
    }  # fmt: skip
    made = deployment(_content(plan, "owned", tmp_path, written), "dec_1")
    words = " ".join(made.unsaid)
    for each in ("no setting keeps them", "training runs", "embeddings"):
        assert each in words
    assert _settings(made, tmp_path).engines.vllm.max_rank == 32
    assert _settings(made, tmp_path).engines.vllm.max_adapters == 20


def test_an_address_that_nobody_knows_is_asked_for(plan: Planned, tmp_path: Path) -> None:
    content = _content(plan, "api", tmp_path)
    content["option"] = content["option"] | {"provider": "Elsewhere"}
    made = deployment(content, "dec_1")
    assert made.settings == {}
    assert any("The address of Elsewhere" in each for each in made.unsaid)


def test_no_name_of_others_gets_out_of_its_comment(plan: Planned, tmp_path: Path) -> None:
    content = _content(plan, "api", tmp_path)
    content["workload"] = content["workload"] | {"name": "x\nserver: {host: 0.0.0.0}\n\u2028y: 1"}
    settings = _settings(deployment(content, "dec_1"), tmp_path)
    assert settings.server == Settings().server
