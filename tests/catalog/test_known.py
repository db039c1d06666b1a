from freehold.catalog import known, licences
from freehold.core.ids import is_digest
from freehold.core.model import Task


def test_the_default_is_a_smoke_model_from_the_hub_or_the_package_index() -> None:
    default = known.find(known.default_name())

    assert default is not None
    assert default.smoke
    assert licences.named(default.licence).commercial_use is True
    kinds = [source.reference.split(":")[0] for source in default.sources]
    assert kinds == ["hf", "pypi"]


def test_every_entry_is_whole() -> None:
    for model in known.every():
        assert known.find(model.name) == model
        assert model.sources
        assert licences.named(model.licence).spdx == model.licence
        assert model.memory_gb * 2 > model.parameters_b, "four bits a weight, and more"
        for source in model.sources:
            assert source.reference.startswith(("hf:", "pypi:"))
            assert source.digest is None or is_digest(source.digest)


def test_the_best_fit_grows_with_the_memory_and_is_free_to_use() -> None:
    fits = [known.best_fitting(size * 2**30) for size in (1, 4, 8, 16, 24, 48, 96, 512)]

    assert fits[0] is None
    ranks = [model.rank for model in fits if model is not None]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) > 4
    for size, model in zip((4, 8, 16, 24, 48, 96, 512), fits[1:], strict=True):
        assert model is not None
        assert model.memory_gb * 1e9 <= size * 2**30 * 0.8
        assert model.task is Task.CHAT
        assert not model.smoke
        assert licences.named(model.licence).commercial_use is True
        assert model.pull_command == f"freehold model pull {model.name}"


def test_licences_with_conditions_are_not_plainly_commercial() -> None:
    for name in ("llama-3.1-8b-instruct", "llama-3.3-70b-instruct"):
        model = known.find(name)
        assert model is not None
        assert licences.named(model.licence).commercial_use is None
