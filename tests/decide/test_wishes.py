"""What a workload says changes what is planned, each field as it must."""

from dataclasses import replace
from datetime import date

import pytest

from freehold.catalog.facts import load_facts
from freehold.core.errors import UserError
from freehold.core.plan import (
    Carbon,
    Economics,
    Embedding,
    Lengths,
    Rules,
    Targets,
    Tuning,
    Way,
    Workload,
)
from freehold.decide.ways.planner import Plan, plan
from freehold.decide.ways.sizing import Sizing

_FACTS = load_facts()
_SIZING = Sizing(_FACTS)
_WORK = Workload(
    "work",
    30_000,
    Lengths((500, 1500)),
    Lengths((200,)),
    region="us",
    models=("mistral-7b-v0.1", "gpt-5-mini", "mistral-small-2603"),
    rules=Rules(users_a_month=1000),
)


def planned(**told: object) -> Plan:
    work = replace(_WORK, **told)  # type: ignore[arg-type]
    return plan(work, _FACTS, _SIZING, start=date(2026, 12, 1))


def a_month(found: Plan, words: str) -> float:
    """Of the cheapest option with these words in its id."""
    best = next(each for each in found.ranked if words in each.option.id)
    return sum(part.a_month for part in best.cost.parts)


def part_names(found: Plan, words: str) -> list[str]:
    best = next(each for each in found.ranked if words in each.option.id)
    return [part.name for part in best.cost.parts]


def test_what_a_tonne_costs_is_a_part_of_what_machines_cost_and_of_no_api() -> None:
    plain, priced = planned(), planned(carbon=Carbon(100))
    assert "Emissions" not in part_names(plain, "owned/")
    assert "Emissions" in part_names(priced, "owned/")
    assert "Emissions" not in part_names(priced, "api/")
    best = next(each for each in priced.ranked if each.option.id.startswith("owned/"))
    emitted = best.cost.emitted
    assert emitted is not None
    [part] = [each for each in best.cost.parts if each.name == "Emissions"]
    assert part.a_month == pytest.approx(float(emitted.kilograms_a_month) / 10, abs=0.01)


def test_emissions_go_by_the_grid_that_is_said_and_cost_nothing_without_a_price() -> None:
    clean, dirty = planned(carbon=Carbon(0, 0.05)), planned(carbon=Carbon(0, 0.5))
    one, other = (
        next(e.cost.emitted for e in found.ranked if e.option.id.startswith("owned/"))
        for found in (clean, dirty)
    )
    assert one is not None
    assert other is not None
    assert other.kilograms_a_month == 10 * one.kilograms_a_month
    assert "assumed" not in one.formula
    assert a_month(clean, "owned/") == a_month(planned(), "owned/")


def test_own_figures_stand_in_place_of_those_that_are_assumed() -> None:
    cheap = planned(assumptions=(("price.l4", 100.0),))
    assert a_month(cheap, "1xl4") < a_month(planned(), "owned/")
    in_euros = planned(assumptions=(("for_a_dollar", 0.5),))
    assert a_month(in_euros, "api/") == pytest.approx(a_month(planned(), "api/") / 2, abs=0.02)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("api_ttft", 1.0, "near it are api_ttft_ms"),
        ("api_availability", 99.8, "is a share: it is one at most"),
        ("zones", 1e12, "20 at most"),
        ("for_a_dollar", 0.0, "is zero"),
    ],
)
def test_a_figure_that_is_none_is_refused(name: str, value: float, told: str) -> None:
    with pytest.raises(UserError, match=told):
        planned(assumptions=((name, value),))


# What changes, and what of the plan must then be more (or the same) than before: the cheapest of
# the options whose id has these words.
DEARER = {
    "longer prompts": ({"prompt": Lengths((5000,))}, "api/"),
    "longer answers": ({"answer": Lengths((2000,))}, "owned/"),
    "lengths of the same mean that differ more": (
        {"prompt": Lengths((100, 100, 2800)), "targets": Targets(ttft_ms=400)}, "rented/"),
    "all in one hour": ({"hours": (1.0,) + (0.0,) * 23, "requests_a_day": 900_000}, "owned/"),
    "all on one day": ({"weekdays": (1.0,) + (0.0,) * 6, "requests_a_day": 900_000}, "owned/"),
    "bursts": ({"bursts": 3.0, "requests_a_day": 900_000}, "owned/"),
    "growth": ({"growth_a_month": 0.2}, "api/"),
    "adapters of many tenants": ({"tenants_with_adapters": 2000, "adapter_rank": 64}, "owned/"),
    "a time to the first token": ({"targets": Targets(ttft_ms=60)}, "owned/"),
    "a time a token": ({"targets": Targets(tpot_ms=8)}, "owned/"),
    "a time for all": ({"targets": Targets(whole_s=1.5)}, "owned/"),
    "availability": ({"targets": Targets(availability=0.9999)}, "rented/"),
    "people": ({"economics": Economics(team_a_month=9000)}, "owned/"),
    "power": ({"economics": Economics(power_per_kwh=0.9)}, "owned/"),
    "interest": ({"economics": Economics(discount_rate=0.3)}, "owned/"),
    "a short life": ({"economics": Economics(amortization_months=12)}, "owned/"),
    "room": ({"economics": Economics(utilization_ceiling=0.05)}, "owned/"),
    "data out": ({"economics": Economics(egress_gb_a_request=0.01)}, "rented/AWS"),
    "embeddings": ({"embedding": Embedding(50_000_000)}, "api/"),
    "training": ({"tuning": Tuning(8, 400_000_000, "full")}, "rented/"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEARER)
def test_more_is_asked_for_and_costs_more(name: str) -> None:
    changes, words = DEARER[name]
    shared = {key: changes[key] for key in ("requests_a_day",) if key in changes}
    assert a_month(planned(**changes), words) > a_month(planned(**shared), words)


# What keeps all options with these words out, though there are some without it.
KEPT_OUT = {
    "a deadline": ({"deadline_days": 40}, "owned/", "days until it serves"),
    "quality": ({"rules": Rules(least_mmlu=80)}, "mistral-7b", "is wanted"),
    "context": ({"context_length": 30_000}, "mistral-7b", "tokens, and 30,000 are needed"),
    "residency": ({"rules": Rules(frozenset({"de"}))}, "rented/AWS/g4dn.xlarge/us", "may be in de"),
    "a certificate": (
        {"rules": Rules(certifications=frozenset({"iso_27001"}))}, "managed/RunPod",
        "not published"),
    "a licence of adapters": (
        {"tenants_with_adapters": 3, "adapter_licence": "CC-BY-NC-4.0"}, "owned/",
        "allows no commercial use"),
    "a licence of data": (
        {"tuning": Tuning(1, 10**6, data_licence="cc-by-nc-4.0")}, "owned/",
        "allows no commercial use"),
    "a licence of data that is disputed": (
        {"tuning": Tuning(1, 10**6, data_licence="CC-BY-SA-4.0")}, "owned/", "ask a lawyer"),
    "a licence that nobody knows": (
        {"tuning": Tuning(1, 10**6, data_licence="friendly")}, "owned/", "is not known here"),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT_OUT)
def test_what_is_asked_for_keeps_options_out_with_its_reason(name: str) -> None:
    changes, words, why = KEPT_OUT[name]
    models = {key: changes[key] for key in ("models",) if key in changes}
    before, found = planned(**models), planned(**changes)
    assert any(words in each.option.id for each in before.ranked)
    assert not any(words in each.option.id for each in found.ranked)
    reasons = [
        reason
        for each in found.rejected
        for reason in (each.why, *(judged.why for judged in each.judged))
    ]
    assert any(why in reason for reason in reasons)


@pytest.mark.parametrize("licence", ["own", "Apache-2.0", "CC-BY-4.0", "mit"])
def test_licences_that_allow_it_keep_nothing_out(licence: str) -> None:
    plain = planned(tuning=Tuning(1, 10**6), tenants_with_adapters=3)
    told = planned(
        tuning=Tuning(1, 10**6, data_licence=licence),
        tenants_with_adapters=3,
        adapter_licence=licence,
    )
    assert [each.option.id for each in told.ranked] == [each.option.id for each in plain.ranked]
    rules = {judged.rule for judged in told.ranked[0].judged}
    assert rules >= {"licence: adapters", "licence: training data"}


def test_what_may_not_be_sold_may_be_used_without_selling() -> None:
    rules = replace(_WORK.rules, commercial_use=False)
    tuning = Tuning(1, 10**6, data_licence="cc-by-nc-4.0")
    assert planned(rules=rules, tuning=tuning).ranked


_STRICT = Rules(
    residency=frozenset({"de"}), data_class="personal", retention_days=0, users_a_month=1000
)


def test_where_data_must_not_leave_training_is_on_machines_that_the_rules_allow() -> None:
    found = planned(region="de", rules=_STRICT, tuning=Tuning(2, 10_000_000))
    trained = [
        part
        for each in found.ranked
        for part in each.cost.parts
        if part.name.startswith("Training")
    ]
    assert trained
    assert not any("not counted" in part.formula for part in trained)
    # Of those who rent machines in Germany, Azure alone has them, and an agreement.
    assert all("own machines" in part.formula or "azure" in str(part.source) for part in trained)


def test_training_that_fits_nowhere_keeps_an_option_out() -> None:
    nowhere = replace(_STRICT, residency=frozenset({"bg"}))
    tuning = Tuning(2, 10**12, "full")
    found = planned(region="bg", rules=nowhere, tuning=tuning)
    assert not found.ranked
    assert any("Training (full)" in each.why for each in found.rejected)


def test_own_machines_embed_beside_the_model_where_they_have_room() -> None:
    wanted = Embedding(5_000_000, 100_000_000)
    found = planned(embedding=wanted, models=("mistral-7b-v0.1",), region="de", rules=_STRICT)
    roomy = next(each for each in found.ranked if "1xl40s" in each.option.id)
    [part] = [each for each in roomy.cost.parts if each.name.startswith("Embed")]
    assert part.a_month == 0
    assert "bge-m3" in part.formula
    assert "beside the model" in part.formula
    full = next(each for each in found.ranked if each.option.id.endswith("/bf16/1xl4"))
    assert sum(e.a_month for e in full.cost.parts if e.name.startswith("Embed")) > 0


def test_where_nobody_may_sell_embeddings_they_are_hosted_or_the_option_is_left_out() -> None:
    wanted = Embedding(5_000_000)
    found = planned(embedding=wanted, region="de", rules=_STRICT)
    parts = [p for e in found.ranked for p in e.cost.parts if p.name.startswith("Embed")]
    assert parts
    assert not any("not counted" in part.formula for part in parts)
    unknown = planned(embedding=replace(wanted, model="nobody-has-this"))
    assert not unknown.ranked
    assert any("No embedding model nobody-has-this" in each.why for each in unknown.rejected)


def test_more_to_embed_than_idle_hours_hold_is_embedded_elsewhere() -> None:
    def parts(tokens: float) -> list[str]:
        found = planned(
            embedding=Embedding(tokens), models=("mistral-7b-v0.1",), region="de", rules=_STRICT
        )
        best = next(each for each in found.ranked if "1xl40s" in each.option.id)
        return [part.formula for part in best.cost.parts if part.name.startswith("Embed")]

    assert "beside the model" in parts(1_000_000)[0]
    assert "azure" in parts(12_000_000_000)[0].lower()


def test_an_endpoint_in_ones_own_cloud_is_a_way_of_its_own() -> None:
    found = planned(models=("llama-3.1-8b", "gpt-oss-120b"))
    bedrock = next(each for each in found.ranked if "managed/AWS (Bedrock)" in each.option.id)
    assert bedrock.option.way is Way.MANAGED
    assert any("Not every region" in each for each in bedrock.notes)
    missing = {each.what: each.why for each in found.rejected}
    assert "quotation" in missing["managed/Azure OpenAI/provisioned throughput (PTU)"]
    assert any(each.startswith("managed/AWS (SageMaker)") for each in missing)
