"""Which of the measured formats is the one that a model is served in."""

from dataclasses import replace

import pytest

from freehold.config.schema import OpenVinoSettings
from freehold.core.model import ModelCard, Quality, QualityTrial
from freehold.deploy.quality import measured_of
from tests.harness import card

_CHOICES = [
    ("float32", "f32"), ("int8", "u8"), ("int8", "bf16"), ("int4", "u8"), ("int4", "bf16"),
]  # fmt: skip


def _measured() -> ModelCard:
    trials = (QualityTrial(*choice, 0, 0, 0, 0, 0, 0, 0, 0, False) for choice in _CHOICES)
    return replace(card(), quality=Quality("openvino", "", "", 0, 0, 0.05, tuple(trials)))


@pytest.mark.parametrize(
    ("weights", "kv_cache", "expected"),
    [
        ("int8", "u8", ("int8", "u8")),
        ("int4", "bf16", ("int4", "bf16")),
        ("float32", "u8", ("float32", "f32")),
    ],
)
def test_it_is_found_by_the_formats_of_the_settings(
    weights: str, kv_cache: str, expected: tuple[str, str]
) -> None:
    settings = OpenVinoSettings.model_validate({"weights": weights, "kv_cache": kv_cache})
    found = measured_of(_measured(), "openvino", settings)
    assert found is not None
    assert (found.weights, found.kv_cache) == expected


def test_nothing_is_told_of_another_engine_or_of_what_nobody_measured() -> None:
    assert measured_of(_measured(), "llama_cpp", OpenVinoSettings()) is None
    assert measured_of(card(), "openvino", OpenVinoSettings()) is None
