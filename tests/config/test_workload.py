"""A workload file, from four lines to all that there is, and what it cannot say."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.config.workload import parse_workload, read_workload
from freehold.config.workload_file import PEAKS, WorkloadFile
from freehold.core.errors import UserError
from freehold.core.places import is_within, light_ms
from freehold.core.plan import Carbon, Embedding, Lengths, Rules, Targets, Tuning, Workload

SMALL = "requests_per_day: 1.5k\nprompt: 800\nanswer: 200\n"
RICH = """\
name: support
requests_per_day: 20k
prompt: {p50: 800, p95: 3k}
answer: {histogram: {128: 50 %, 512: 50 %}}
region: eu-central-1
users_region: us-west-2
data_class: personal
peak: office
bursts: 0.5
cached: 30 %
growth_per_month: 5 %
horizon: 1 year
adapters: {tenants: 20, rank: 32}
context_length: 32k
deadline: 2 weeks
models: [qwen2.5-7b]
targets: {ttft_p95: 2 s, tpot_p95: 50 ms, whole_p95: 1 min, availability: 99.9 %}
rules:
  residency: [eu]
  certifications: [soc2_type2]
  retention: 0 days
  least_mmlu: 65
  users_a_month: 2k
embeddings: {tokens_per_day: 1M, documents_tokens: 50M}
tuning: {runs_per_month: 2, tokens: 5M}
economics: {team_per_month: 12k, egress_per_request: 20 kB, amortization: 4 years}
"""


_ODD = (
    "1", "-1", "1e400", ".nan", ".inf", "0x1f", "0o17", "1:30", "500 miles", "95 %", "2 s", "~", "",
    "yes", "2026-01-01", "2026-99-99", "[1, [2]]", "{a: 1}", "{p50: 1, p95: 2}", "'x'", "!!set {a}",
    "&a 1", "*a", "[eu]", "{tenants: 1e18, rank: 3}", "9" * 5000, "\t", "|\n  a", "1_000",
    "30 days",
)  # fmt: skip


def problem(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_workload(text)
    return caught.value.message


def test_three_lines_are_a_workload() -> None:
    assert parse_workload(SMALL, Path("chat.yaml")) == Workload(
        "chat", 1500, Lengths((800,)), Lengths((200,))
    )


def test_a_rich_one_says_everything() -> None:
    found = parse_workload(RICH)
    assert (found.name, found.requests_a_day, found.cached_share) == ("support", 20_000, 0.3)
    assert (found.hours, found.weekdays) == PEAKS["office"]
    assert (found.growth_a_month, found.horizon_months, found.bursts) == (0.05, 12, 0.5)
    assert (found.tenants_with_adapters, found.adapter_rank) == (20, 32)
    assert (found.context_length, found.deadline_days) == (32_000, 14)
    assert (found.region, found.users_region) == ("eu-central-1", "us-west-2")
    assert found.targets == Targets(2000, 50, 60, 0.999)
    assert found.rules == Rules(
        residency=frozenset({"eu"}),
        certifications=frozenset({"soc2_type2"}),
        data_class="personal",
        retention_days=0,
        least_mmlu=65,
        users_a_month=2000,
    )
    assert found.embedding == Embedding(1e6, 50e6)
    assert found.tuning == Tuning(2, 5_000_000)
    assert found.economics.team_a_month == 12_000
    assert found.economics.egress_gb_a_request == 0.00002
    assert found.economics.amortization_months == 48


def test_licences_emissions_an_embedder_and_own_assumptions_are_read() -> None:
    found = parse_workload(
        RICH.replace("rank: 32", "rank: 32, licence: mit")
        .replace("tokens: 5M", "tokens: 5M, data_licence: cc-by-4.0")
        .replace("documents_tokens: 50M", "documents_tokens: 50M, model: bge-m3")
        + "carbon: {price_per_tonne: 80, grid_kg_per_kwh: 0.35}\n"
        + "assumptions: {price.l40s: 7k, zones: 2}\n"
    )
    assert found.adapter_licence == "mit"
    assert found.tuning == Tuning(2, 5_000_000, data_licence="cc-by-4.0")
    assert found.embedding == Embedding(1e6, 50e6, "bge-m3")
    assert found.carbon == Carbon(80, 0.35)
    assert found.assumptions == (("price.l40s", 7000.0), ("zones", 2.0))


@pytest.mark.parametrize(
    ("said", "meant"),
    [("true", Carbon()), ("80", Carbon(80)), ("false", None), ("{}", Carbon())],
)
def test_emissions_are_told_where_somebody_asks_or_says_what_they_cost(
    said: str, meant: Carbon | None
) -> None:
    assert parse_workload(f"{SMALL}carbon: {said}\n").carbon == meant


def test_numbers_are_decimal_however_they_begin_and_however_small() -> None:
    assert parse_workload(SMALL.replace("800", "0777")).prompt == Lengths((777,))
    small = parse_workload(SMALL + "economics: {power_per_kwh: 0.00001}\n")
    assert small.economics.power_per_kwh == 0.00001


def test_two_percentiles_become_lengths_that_have_them() -> None:
    quantiles = parse_workload(RICH).prompt.quantiles
    assert list(quantiles) == sorted(quantiles)
    assert quantiles[15] < 800 < quantiles[16]
    assert quantiles[29] < 3000 < quantiles[30]  # of 32, the 95th percentile lies between


def test_a_histogram_keeps_its_shares() -> None:
    quantiles = parse_workload(RICH).answer.quantiles
    assert sum(each <= 128 for each in quantiles) == len(quantiles) / 2
    assert max(quantiles) <= 512
    assert parse_workload(RICH).answer.mean == pytest.approx((64 + 320) / 2, rel=0.01)


CHANGES = {
    "nobody asks": ("20k", "0", "line 2: requests_per_day: without a request a day"),
    "below nothing": ("20k", "-3", "line 2: requests_per_day: must not be below zero"),
    "a unit of something else": ("20k", "20 kg", "'20 kg' has none of the units k, M, G, B"),
    "no unit": ("ttft_p95: 2 s", "ttft_p95: 2", "line 17: targets.ttft_p95: 2 has no unit"),
    "hours as tokens": ("context_length: 32k", "context_length: 2 h", "line 14: context_length"),
    "more than all": ("99.9 %", "120 %", "targets.availability: is a share of all"),
    "always there": ("99.9 %", "100 %", "targets.availability: nothing is there 100 %"),
    "no time": ("50 ms", "0 ms", "targets.tpot_p95: nothing takes no time"),
    "an unknown field": ("horizon", "horizn", "line 12: horizn: there is no such field; did you "),
    "an unknown field inside": ("residency", "residenz", "line 19: rules.residenz: there is no"),
    "a field twice": ("name: support", "name: a\nname: b", "line 2: name is there twice"),
    "a reference": ("name: support", "name: *other", "line 1: write the value again"),
    "no section": ("{tenants: 20, rank: 32}", "20", "line 13: adapters: must hold fields"),
    "a missing field": ("answer:", "models_:", "line 4: models_: there is no such field"),
    "lengths upside down": ("p95: 3k", "p95: 3", "line 3: prompt: p95 must not be below p50"),
    "too much of a histogram": ("512: 50 %", "512: 60 %", "shares of histogram are 110.0%"),
    "no tokens": ("{p50: 800, p95: 3k}", "0", "line 3: prompt: must be at least one token"),
    "half a token": ("{p50: 800, p95: 3k}", "1.5", "line 3: prompt: must be a whole number"),
    "two ways to say when": (
        "peak: office", f"peak: office\nhours: {[1] * 24}",
        "line 8: peak: it says when requests come, and so does hours (line 9)",
    ),
    "a day of two hours": ("peak: office", "hours: [1, 2]", "line 8: hours: has 2 numbers"),
    "never": ("peak: office", f"weekdays: {[0] * 7}", "line 8: weekdays: must not be zero"),
    "answers longer than the context": (
        "context_length: 32k", "context_length: 500",
        "line 4: answer: answers of 506 tokens do not fit into the 500 of context_length (line 14)",
    ),
    "prompts longer than the context": (
        "context_length: 32k", "context_length: 4k",
        "line 3: prompt: prompts of 4,516 tokens and answers of 506 do not fit into the 4,000",
    ),
    "faster than light": (
        "ttft_p95: 2 s", "ttft_p95: 50 ms",
        "line 17: targets.ttft_p95: 50 ms is less than light takes from users_region (line 6) "
        "us-west-2 to region (line 5) eu-central-1 and back, 78 ms.",
    ),
    "done before it begins": ("whole_p95: 1 min", "whole_p95: 1 s", "cannot begin after the 2 s"),
    "outside of where it may be": (
        "[eu]", "[us, ca]",
        "line 5: region: eu-central-1 lies outside of what rules.residency (line 19) allows",
    ),
    "nothing kept and everything kept": (
        "[soc2_type2]", "[mifid_2]",
        "line 21: rules.retention: 0 days at most exclude mifid_2 in rules.certifications "
        "(line 20), which asks for 1,825 at least (Directive 2014/65/EU",
    ),
    "trained on what is not kept": (
        "  least_mmlu", "  may_train_on_data: yes\n  least_mmlu",
        "line 22: rules.may_train_on_data: what rules.retention (line 21) lets nobody keep",
    ),
    "a region that is none": ("eu-central-1", "eu-centrl-1", "did you mean eu-central-1?"),
    "Norway": ("region: eu-central-1", "region: no", "line 5: region: must be text (in quotes)"),
    "a date that is none": ("name: support", "name: 2026-99-99", "line 1: name: its value cannot"),
    "a day instead of days": (
        "2 weeks", "2026-12-31", "line 15: deadline: is a date, 2026-12-31: write how long it is",
    ),
    "months in part": ("1 year", "1.5 months", "must be a whole number of months"),
    "miles": ("1 year", "500 miles", "'500 miles' has none of the units month, months"),
    "beyond all numbers": ("20k", "1e400", "line 2: requests_per_day: must not be below zero or "),
    "no number": ("20k", ".nan", "line 2: requests_per_day: 'nan' is no quantity"),
    "hardly any": ("20k", "1e-30", "requests_per_day: is less than a request a year"),
    "another base": ("context_length: 32k", "context_length: 0x7d00", "'0x7d00' has none of the"),
    "growth beyond all": (
        "growth_per_month: 5 %", "growth_per_month: 900 %",
        "line 11: growth_per_month: with it the requests of requests_per_day (line 2) are more "
        "than one a day for everybody alive by the end of horizon (line 12)",
    ),
    "nowhere": ("[eu]", "[mars]", "line 19: rules.residency: 'mars' is no region that is known"),
    "a certificate in another spelling": (
        "[soc2_type2]", "[ISO-27001]",
        "line 20: rules.certifications: 'ISO-27001' is known as iso_27001: write it so.",
    ),
    "a price below nothing": (
        "deadline: 2 weeks", "carbon: -3", "line 15: carbon: must not be below zero",
    ),
    "a list for a map": ("{tenants: 20, rank: 32}", "[20]", "line 13: adapters: must hold fields"),
    "no YAML": ("models: [", "models: [[", "line 17: this is not YAML"),
    "no training": ("tokens: 5M", "tokens: 0", "tuning: runs and tokens must be more than zero"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_is_said_with_its_field_and_line(name: str) -> None:
    old, new, told = CHANGES[name]
    assert old in RICH
    found = problem(RICH.replace(old, new, 1))
    assert told in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: requests_per_day: is missing"),
        ("- 1", "line 1: write fields as"),
        ("{" * 40, "nested deeper"),
        ("name: !!python/object:os.system x", "line 1: write the value without a tag"),
        ("name: !!binary aGk=", "line 1: write the value without a tag"),
        ("? [a]\n: 3", "line 1: a field's name must be a word"),
        ("a: \x00", "this is no text in UTF-8"),
        ("a: &a [x]\nb: [*a, *a]", "line 2: write the value again"),
        (SMALL + "rules:\n\tresidency: [eu]", "line 5: this is not YAML"),
        (SMALL + "---\na: 1", "another document"),
    ],
)
def test_what_is_no_workload_is_refused(text: str, told: str) -> None:
    assert told in problem(text)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200),
        st.lists(
            st.tuples(
                st.sampled_from([*WorkloadFile.model_fields, "x", "<<", "? [a]"]),
                st.sampled_from(_ODD),
            ),
            max_size=6,
        ).map(lambda lines: "\n".join(f"{name}: {value}" for name, value in lines)),
    )
)
def test_any_text_ends_in_a_workload_or_a_sentence_of_ours(text: str | bytes) -> None:
    with suppress(UserError):
        assert parse_workload(text).requests_a_day > 0


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.sampled_from(["requests_per_day", "prompt", "hours", "rules"]))
def test_whatever_stands_in_a_field_ends_in_a_workload_or_a_sentence_of_ours(
    text: str, name: str
) -> None:
    with suppress(UserError):
        assert parse_workload(f"{SMALL}{name}: {text}\n").requests_a_day > 0


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml cannot be read \(No such file"):
        read_workload(tmp_path / "gone.yaml")


def test_a_file_larger_than_anybody_writes_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(UserError, match="larger than a MiB"):
        read_workload(tmp_path / "large.yaml")


@pytest.mark.parametrize(
    ("region", "area", "expected"),
    [
        ("eu-central-1", "eu", True),
        ("eu-central-1", "de", True),
        ("eu-central-2", "eu", False),  # Zurich
        ("eu-west-2", "eu", False),  # London
        ("norwayeast", "eea", True),
        ("de", "eu", True),
        ("us-east-1", "us-west-2", False),
        ("eu", "eea", True),
        ("eu", "de", None),  # may be
    ],
)
def test_a_region_lies_where_it_does(region: str, area: str, expected: bool | None) -> None:
    assert is_within(region, area) is expected


def test_light_takes_its_time_and_no_less_than_none() -> None:
    assert light_ms("frankfurt", "eu-central-1") == 0
    there, back = light_ms("eu-central-1", "ap-southeast-2"), light_ms("sydney", "frankfurt")
    assert there == pytest.approx(back, rel=0.01)
    assert 140 < (there or 0) < 170  # 16,500 km each way
    assert light_ms("eu", "us") is None
