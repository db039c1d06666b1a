"""What each row of the files of facts says, as a noun of `core/facts.py`."""

from collections.abc import Iterator
from datetime import date
from typing import Any

from freehold.catalog.facts_file import Row
from freehold.core.facts import (
    Accelerator,
    ApiPrice,
    Egress,
    EmbeddingPrice,
    Measured,
    ModelFacts,
    ProviderTerms,
    QuantizationLoss,
    RentPrice,
    Score,
    Source,
)

_CERTIFICATIONS = ("soc2_type2", "iso_27001", "hipaa_baa", "dpa")


def accelerator(row: Row) -> Accelerator:
    row.skip("cross_checked", "notes", "derived_fields", "compute_capability")
    return row.ended(
        Accelerator(
            id=row.text("id"),
            name=row.text("name"),
            vendor=row.text("vendor"),
            kind=row.text("kind"),
            memory_gb=row.number_or_none("memory_gb"),
            bandwidth_gb_s=row.number_or_none("memory_bandwidth_gb_s"),
            fp16_tflops=row.number_or_none("dense_fp16_tflops"),
            bf16_tflops=row.number_or_none("dense_bf16_tflops"),
            int8_tops=row.number_or_none("dense_int8_tops"),
            fp8_tflops=row.number_or_none("dense_fp8_tflops"),
            power_w=row.number_or_none("tdp_w"),
            released=row.count("release_year"),
            sources=row.sources(),
            cores=row.count("cores"),
            measured_bandwidth_gb_s=row.number_or_none("measured_bandwidth_gb_s"),
            fp4_tflops=row.number_or_none("dense_fp4_tflops"),
            half_sum_tflops=row.number_or_none("dense_fp16_tflops_fp16_accumulate"),
        )
    )


def model(row: Row) -> ModelFacts:
    """Where the parameters that a token uses are not known they are taken to be all, which
    makes a mixture of experts look slower than it is, never faster."""
    row.skip("cross_checked", "unverified_fields", "ffn", "moe_ffn")
    total = row.number("params_total_b")
    return row.ended(
        ModelFacts(
            id=row.text("id"),
            name=row.text("name"),
            params_b=total,
            active_params_b=row.number_or_none("params_active_b") or total,
            layers=row.count("layers"),
            hidden=row.count("hidden_size"),
            heads=row.count("heads"),
            kv_heads=row.count("kv_heads"),
            head_dim=row.count("head_dim"),
            vocabulary=row.count("vocab_size"),
            context_length=row.count("context_length"),
            architecture=row.text("architecture"),
            licence=row.text_or_none("licence") or "unknown",
            may_be_sold=row.flag("commercial_use"),
            licence_restriction=row.text_or_none("licence_restriction"),
            released=row.text_or_none("release"),
            scores=_scores(row),
            sources=_named_sources(row, "config_source", "licence_source"),
            sliding_window=row.count("sliding_window"),
            global_head_dim=row.count("global_head_dim"),
            global_kv_heads=row.count("global_kv_heads"),
            full_attention_interval=row.count("full_attention_interval"),
            kv_lora_rank=row.count("kv_lora_rank"),
            rope_head_dim=row.count("qk_rope_head_dim"),
            experts=row.count("experts"),
            experts_per_token=row.count("experts_per_token"),
            native_quantization=row.text_or_none("native_quantization"),
            decoder_layers=row.count("layers_decoder"),
            notes=row.text_or_none("notes"),
        )
    )


def _scores(row: Row) -> tuple[Score, ...]:
    """`mmlu` with its setting, then `other_scores` as `<benchmark>_<setting>`."""
    setting, where = row.text_or_none("mmlu_setting"), row.text_or_none("mmlu_source")
    source = Source(where) if where else next(iter(row.own()), None)
    mmlu = row.number_or_none("mmlu")
    found = [] if mmlu is None else [Score("MMLU", mmlu, setting, source)]
    others = row.mapping("other_scores")
    for name in others.fields if others else ():
        benchmark, _, how = str(name).partition("_")
        value = others.number(str(name)) if others else 0.0
        known = {"mmlu": "MMLU", "lambada": "LAMBADA", "hellaswag": "HellaSwag", "piqa": "PIQA"}
        known |= {"winogrande": "WinoGrande", "triviaqa": "TriviaQA"}
        found.append(Score(known.get(benchmark, benchmark), value, how or None, source))
    return tuple(found)


def _named_sources(row: Row, *names: str) -> tuple[Source, ...]:
    told = [(row.text_or_none(name), name.partition("_")[0]) for name in names]
    return tuple(Source(where, what=what) for where, what in told if where) or row.own()


def gpt3_score(row: Row) -> Score | None:
    row.skip("breakdown", "paper", "cross_checked", "notes")
    value, where = row.number_or_none("score"), row.text_or_none("source")
    found = Score(
        row.text("benchmark"), value or 0.0, row.text_or_none("setting"),
        Source(where) if where else next(iter(row.own()), None),
    )  # fmt: skip
    return row.ended(None if value is None else found)


def quantization_loss(row: Row, source: Source) -> QuantizationLoss:
    formats = {str(name) for name in _names(row)} - {"model"}
    by_format = {name: row.number(name) for name in sorted(formats)}
    return row.ended(QuantizationLoss(row.text("model"), by_format, source))


def _names(row: Row) -> set[Any]:
    return set(row.fields) | (_names(row.under) if row.under else set())


def measured(row: Row) -> Measured:
    row.skip("model", "samples_per_s", "requests_per_s", "dataset", "notes")
    row.skip("memory_bandwidth_gb_s_per_unit")
    count = row.count("accelerator_count") or 1
    tokens_per_s = row.number_or_none("tokens_per_s")
    if tokens_per_s is not None and row.text_or_none("scope") == "per_gpu":
        tokens_per_s *= count
    row.skip("scope")
    prompts = {size: row.number_or_none(f"prompt_eval_tokens_per_s_{size}") for size in (512, 1024)}
    prompt = next(((size, rate) for size, rate in prompts.items() if rate), (None, None))
    return row.ended(
        Measured(
            id=row.text("id"),
            kind=row.text("kind"),
            model=row.text_or_none("model_id") or "",
            precision=row.text_or_none("precision") or "",
            accelerator=row.text("accelerator"),
            count=count,
            engine=row.text("engine"),
            input_tokens=row.number_or_none("input_tokens"),
            output_tokens=row.number_or_none("output_tokens"),
            concurrency=row.words("concurrency_or_batch"),
            tokens_per_s=tokens_per_s,
            counted=_counted(row.text_or_none("tokens_counted") or ""),
            ttft_ms=row.number_or_none("ttft_ms"),
            tpot_ms=row.number_or_none("tpot_ms"),
            source=_one_source(row),
            prompt_tokens=prompt[0],
            prompt_tokens_per_s=prompt[1],
            is_for_acceptance=_is_for_acceptance(row),
            instances=row.count("instances"),
            most_at_once=row.count("most_at_once"),
        )
    )


def _counted(told: str) -> str:
    return next((each for each in ("total", "whole") if each in told), "output")


def _is_for_acceptance(row: Row) -> bool:
    told = row.text_or_none("set")
    if told not in (None, "fit", "acceptance"):
        raise row.refused(f"`set` is {told!r}, and is fit or acceptance", "set")
    return told == "acceptance"


def _one_source(row: Row) -> Source:
    where, at = row.text_or_none("source"), row.date("date")
    return Source(where or str(row.file.path), at)


def rent(row: Row) -> RentPrice:
    row.skip("usd_per_accelerator_hour", "usd_per_second", "cross_checked")
    where = row.text_or_none("source") or str(row.file.path)
    return row.ended(
        RentPrice(
            provider=row.text("provider"),
            instance=row.text("instance"),
            region=row.text_or_none("region") or "",
            accelerator=row.text_or_none("accelerator") or "",
            count=row.count("accelerator_count") or 0,
            term=row.text("term"),
            usd_per_hour=row.number("usd_per_hour"),
            source=Source(where, row.date("date"), row.text_or_none("notes")),
        )
    )


def egress(row: Row) -> Egress:
    """A tier without a price is left out."""
    row.skip("cross_checked", "standard_tier_usd_per_gb")
    tiers = []
    for tier in row.rows("tiers"):
        tier.skip("range")
        up_to, usd = tier.number_or_none("up_to_tb"), tier.number_or_none("usd_per_gb")
        tier.ended(None)
        if usd is not None:
            tiers.append((None if up_to is None else up_to * 1000, usd))
    told = row.sources() or (Source(str(row.file.path)),)
    source = Source(told[0].where, row.date("date"), row.text_or_none("notes"))
    return row.ended(
        Egress(
            provider=row.text("provider"),
            free_gb=row.number_or_none("free_gb_per_month") or 0.0,
            tiers=tuple(tiers),
            between_zones_usd_per_gb=row.number_or_none("inter_az_usd_per_gb"),
            source=source,
        )
    )


def api(row: Row) -> ApiPrice:
    row.skip("effective_from", "earlier_prices")
    return row.ended(
        ApiPrice(
            provider=row.text("provider"),
            model=row.text("model"),
            name=row.text_or_none("name") or row.text("model"),
            input_usd=row.number("input_usd_per_mtok"),
            cached_usd=row.number_or_none("cached_input_usd_per_mtok"),
            output_usd=row.number("output_usd_per_mtok"),
            context_length=row.count("context_window"),
            source=_price_source(row),
            long_context=_long_context(row),
            later=tuple(_later(row)),
            in_own_cloud=bool(row.flag("in_own_cloud")),
        )
    )


def _later(row: Row) -> Iterator[tuple[date, float, float]]:
    for each in row.rows("future_prices"):
        begins = each.date("from")
        if begins is None:
            raise each.refused("`from` is missing: say the day that the price begins at", "from")
        yield each.ended((begins, each.number("input"), each.number("output")))


def _long_context(
    row: Row,
) -> tuple[tuple[int, float | None, float | None, float | None], ...]:
    tiers = row.mapping("long_context_tiers")
    if tiers is None:
        return ()
    names = ("input", "cached_input", "output")
    prices: dict[int, dict[str, float]] = {}
    for name in names:
        for each in tiers.rows(name):
            above = each.count("above_input_tokens") or 0
            prices.setdefault(above, {})[name] = each.number("usd_per_mtok")
            each.ended(None)
    tiers.ended(None)
    return tuple(
        (above, told.get("input"), told.get("cached_input"), told.get("output"))
        for above, told in sorted(prices.items())
    )


def embedding(row: Row) -> EmbeddingPrice:
    row.skip("name")
    return row.ended(
        EmbeddingPrice(
            provider=row.text("provider"),
            model=row.text("model"),
            usd=row.number("usd_per_mtok"),
            context_length=row.count("context_window"),
            source=_price_source(row),
        )
    )


def _price_source(row: Row) -> Source:
    """The vendor's page, and when the price was looked up there."""
    checked, comment = row.date("price_checked"), row.text_or_none("comment")
    told = row.mapping("source")
    if told is None:
        return Source(str(row.file.path), checked, comment)
    told.skip("read_from")
    where, at = told.text("vendor_page"), told.date("snapshot_date")
    return told.ended(Source(where, checked or at, comment))


def terms(row: Row) -> ProviderTerms:
    return row.ended(
        ProviderTerms(
            provider=row.text("provider"),
            certifications={name: row.text_or_none(name) for name in _CERTIFICATIONS},
            regions=row.texts("residency_regions"),
            serves_in_eu=row.flag("eu_residency"),
            residency_notes=row.text_or_none("residency_notes"),
            zero_retention=row.text_or_none("zero_retention"),
            trains_on_data=row.text_or_none("trains_on_api_data"),
            sources=row.sources(),
        )
    )
