"""Engines by name: made when they are chosen, and a wrong name lists the right ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from freehold.config.schema import EngineSettings
from freehold.core.errors import Code, UserError
from freehold.core.peft import RankLimit
from freehold.engines import registry
from freehold.engines.base import LocalModel
from tests.harness import card


@pytest.mark.parametrize("name", sorted(registry._CREATORS))
def test_who_answers_under_adapters_is_known_without_asking(name: str) -> None:
    model = LocalModel(card(), Path("/none"))
    try:
        able = registry.create(name, EngineSettings()).capabilities(model)
    except UserError as error:  # it can be told only where it is installed
        if error.code is not Code.NOT_INSTALLED:
            raise
        return
    assert able.adapters == (name in registry.with_adapters())


@pytest.mark.parametrize("name", sorted(registry._CREATORS))
def test_an_engine_goes_by_the_name_it_was_asked_for_with(name: str) -> None:
    assert registry.create(name, EngineSettings()).name == name


def test_a_wrong_name_is_told_with_the_right_ones() -> None:
    for name in ("vllm2", "", "Fake"):
        with pytest.raises(UserError) as refused:
            registry.create(name, EngineSettings())
        assert refused.value.code is Code.CONFIG_INVALID
        assert all(known in refused.value.message for known in registry._CREATORS)


def test_settings_reach_the_engine() -> None:
    settings = EngineSettings.model_validate(
        {"fake_flags": ["--slow=1"], "llama_cpp": {"streams": 3, "context_length": 200}}
    )
    model = LocalModel(card(context=4096), Path("/none"))
    assert "--slow=1" in registry.create("fake", settings).launch(model, "/s").argv
    able = registry.create("llama_cpp", settings).capabilities(model)
    assert (able.concurrency, able.context_length) == (3, 200)


def test_the_highest_rank_of_adapters_is_that_of_the_engine_which_serves_their_base() -> None:
    settings = EngineSettings.model_validate(
        {"openvino": {"max_rank": 8}, "vllm": {"max_rank": 32}}
    )
    found = {
        name: registry.rank_limit(settings.model_copy(update={"default": name}))
        for name in registry._CREATORS
    }
    assert found == {
        "fake": RankLimit(), "llama_cpp": RankLimit(),
        "openvino": RankLimit(8, "engines.openvino.max_rank"),
        "vllm": RankLimit(32, "engines.vllm.max_rank"),
    }  # fmt: skip


def test_an_engine_that_is_not_chosen_is_not_loaded() -> None:
    """Its library may be large, or not be installed."""
    script = (
        "import sys; from freehold.engines import registry; "
        "print([name for name in sys.modules if 'llama' in name or 'fake' in name])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert ended.stdout.strip() == b"[]"
