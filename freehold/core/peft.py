"""A LoRA adapter as PEFT saves it, read strictly: what it changes of a base, or why it
is refused.

Only settings and tensors known here pass. Whatever else would be left out silently makes
another model than the one that was trained, so it is refused by name. What the settings
mean is PEFT's own: `LoraConfig` and `LoraLayer.update_layer` (looked up in 0.21).
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.core.adapter import CONFIG, WEIGHTS
from freehold.core.errors import Code, UserError
from freehold.core.ids import digest_of_files
from freehold.core.peft_patterns import Patterns
from freehold.core.safetensors import Tensor

_BLOCKS = {
    "q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
    "qkv_proj": "self_attn", "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp",
    "gate_up_proj": "mlp",
}  # fmt: skip
_PREFIX = "base_model.model."  # the modules' own names follow
_DTYPES = ("F32", "F16", "BF16")
_MAX_CONFIG_BYTES, _MAX_HEADER_BYTES = 256 * 1024, 4 * 1024 * 1024
_MAX_ALPHA = 1_000_000
# They describe the training, or where the adapter came from.
_WITHOUT_EFFECT = frozenset({
    "auto_mapping", "base_model_name_or_path", "revision", "peft_version", "inference_mode",
    "lora_dropout", "megatron_core", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "qalora_group_size", "exclude_modules", "layers_pattern", "runtime_config",
    "ensure_weight_tying",
})  # fmt: skip
_READ = frozenset({
    "peft_type", "task_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
    "target_modules", "layers_to_transform", "init_lora_weights", "bias",
})  # fmt: skip
# The other ways to begin (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA ...) change the base too.
_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class Factors:
    """The linear changes by `scale` x B A; `a` is [rank, inputs], `b` [outputs, rank]."""

    layer: int
    linear: str
    rank: int
    scale: float
    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class Lora:
    """`rank` is the highest; `factors` are in the order of their layers."""

    rank: int
    factors: tuple[Factors, ...]


@dataclass(frozen=True, slots=True)
class RankLimit:
    """What an engine takes, and the setting that raises it, if one does."""

    most: int = 512
    setting: str | None = None


def load(
    config: Path,
    weights: Path,
    linears: Mapping[str, tuple[int, int]],
    layers: int,
    limit: RankLimit,
) -> tuple[bytes, bytes]:
    """Both files whole, so that what is checked is what is used afterwards. Raises
    `FILE_REFUSED` for one that is larger than any adapter of this base can be."""
    values = sum(map(sum, linears.values())) * layers * limit.most
    return _whole(config, CONFIG, _MAX_CONFIG_BYTES), _whole(
        weights, WEIGHTS, 4 * values + _MAX_HEADER_BYTES
    )


def digest_of(config: bytes, weights: bytes) -> str:
    """The adapter's digest; see `AdapterFiles`."""
    files = {CONFIG: config, WEIGHTS: weights}
    return digest_of_files(
        {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in files.items()}
    )


def check(
    config: bytes,
    tensors: Sequence[Tensor],
    linears: Mapping[str, tuple[int, int]],
    layers: int,
    limit: RankLimit,
) -> Lora:
    """`linears` are the base's (inputs, outputs) by PEFT's names. Raises `FILE_REFUSED`,
    or `FILE_INVALID` for a config that is no JSON object. Values of the tensors are not
    looked at."""
    settings = _settings(config)
    _check_kind(settings)
    pairs = _pairs(tensors, linears, layers)
    _check_targets(settings.get("target_modules"), [_module(*place) for place in pairs])
    _check_layers(settings.get("layers_to_transform"), {layer for layer, _ in pairs})
    scales = _Scales(settings, [_module(i, name) for i in range(layers) for name in linears])
    factors = tuple(
        _factors(place, pairs[place], linears[place[1]], scales, limit) for place in sorted(pairs)
    )
    return Lora(max(each.rank for each in factors), factors)


def refused(why: str, step: str = "Train it again as plain LoRA of this base") -> UserError:
    return UserError(Code.FILE_REFUSED, f"This adapter cannot be used, because {why}: {step}.")


def _whole(path: Path, name: str, most_bytes: int) -> bytes:
    unreadable = UserError(
        Code.FILE_INVALID, f"{name} of this adapter cannot be read: add the adapter again."
    )
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise unreadable from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise unreadable
        if found.st_size > most_bytes:
            raise refused(f"{name} is larger than that of any adapter of this base")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(found.st_size)
    except OSError:
        raise unreadable from None
    finally:
        os.close(handle)


def _settings(config: bytes) -> dict[str, Any]:
    try:
        settings = json.loads(config, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise UserError(
            Code.FILE_INVALID, f"{CONFIG} is no sound JSON object: fetch the adapter again."
        )
    return settings


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _check_kind(settings: Mapping[str, Any]) -> None:
    if settings.get("peft_type") != "LORA":
        raise refused(f"its peft_type is {_shown(settings.get('peft_type'))}, not 'LORA'")
    if settings.get("task_type") not in (None, "CAUSAL_LM"):
        raise refused(f"its task_type is {_shown(settings['task_type'])}, not 'CAUSAL_LM'")
    if settings.get("bias") not in (None, "none"):
        raise refused(f"it trains biases (bias is {_shown(settings['bias'])})")
    begun = settings.get("init_lora_weights")
    if not any(begun is known or (begun == known and type(begun) is str) for known in _BEGINNINGS):
        raise refused(f"init_lora_weights is {_shown(begun)}, which may change the base itself")
    for name, value in settings.items():
        is_off = value is None or value is False or value in ({}, [], "")
        if not is_off and name not in _READ and name not in _WITHOUT_EFFECT:
            raise refused(f"its setting {name[:60]!r} is not supported")


def _pairs(
    tensors: Sequence[Tensor], linears: Collection[str], layers: int
) -> dict[tuple[int, str], dict[str, Tensor]]:
    """A and B by layer and linear."""
    known = {
        f"{_PREFIX}{_module(layer, linear)}.lora_{side}.weight": (layer, linear, side)
        for layer in range(layers)
        for linear in linears
        for side in "AB"
    }
    pairs: dict[tuple[int, str], dict[str, Tensor]] = {}
    for tensor in tensors:
        if tensor.name not in known:
            raise refused(_why_not(tensor.name, layers))
        if tensor.dtype not in _DTYPES:
            raise refused(f"{tensor.name} is {tensor.dtype}, not one of {', '.join(_DTYPES)}")
        layer, linear, side = known[tensor.name]
        pairs.setdefault((layer, linear), {})[side] = tensor
    if not pairs:
        raise refused("it holds no tensors")
    for place, pair in pairs.items():
        if len(pair) != 2:
            raise refused(f"{_module(*place)} has lora_{''.join(pair)} but not the other factor")
    return pairs


def _why_not(name: str, layers: int) -> str:
    """Why this is none of the tensors that belong to an adapter of this base."""
    if "lora_magnitude" in name:
        return "it is DoRA: it holds magnitudes beside the factors"
    if "embed_tokens" in name or "lora_embedding_" in name:
        return "it changes the embedding"
    if "lm_head" in name:
        return "it changes the head (lm_head)"
    if name.endswith(".bias"):
        return f"it changes a bias ({name[:100]!r})"
    number = name.removeprefix(f"{_PREFIX}model.layers.").partition(".")[0]
    if number.isascii() and number.isdigit() and len(number) < 9 and int(number) >= layers:
        return f"it changes layer {number} of a base that has {layers}"
    return f"it holds a tensor that is not supported ({name[:100]!r})"


def _check_targets(targets: Any, modules: Sequence[str]) -> None:
    """PEFT takes a list as names or their ends. A text is a pattern that PEFT chose the
    modules by; which these were, the tensors say."""
    if targets is None or isinstance(targets, str):
        return
    if not isinstance(targets, list) or not all(isinstance(each, str) for each in targets):
        raise refused("its target_modules is no list of names")
    for target in targets:
        if target.rpartition(".")[2] not in _BLOCKS:
            raise refused(f"target_modules names {target[:60]!r}, which is no linear of a layer")
    missing = set(targets)
    for module in modules:
        parts = module.split(".")
        ends = {".".join(parts[at:]) for at in range(len(parts))}
        if ends.isdisjoint(targets):
            raise refused(f"it holds tensors of {module}, which target_modules does not name")
        missing -= ends
    if missing:
        raise refused(f"it lacks the tensors of {min(missing)[:60]!r}, which target_modules names")


def _check_layers(said: Any, found: set[int]) -> None:
    if said is None or said == []:
        return
    named = said if isinstance(said, list) else [said]
    if not all(type(each) is int for each in named):
        raise refused("its layers_to_transform is no list of numbers")
    if found != set(named):
        differing = min(found ^ set(named))
        raise refused(f"layers_to_transform and its tensors disagree about layer {differing}")


class _Scales:
    """Rank and scale of each module, as the settings say."""

    def __init__(self, settings: Mapping[str, Any], modules: Sequence[str]) -> None:
        self._rank, self._alpha = settings.get("r"), settings.get("lora_alpha")
        self._rooted = settings.get("use_rslora") or False
        if type(self._rank) is not int or self._rank < 1:
            raise refused("its r is not a whole number above 0")
        if not _is_alpha(self._alpha):
            raise refused("its lora_alpha is not a number above 0")
        if type(self._rooted) is not bool:
            raise refused("its use_rslora is neither true nor false")
        self._ranks = _patterns(settings, "rank_pattern", modules)
        self._alphas = _patterns(settings, "alpha_pattern", modules)

    def of(self, module: str) -> tuple[int, float]:
        rank = self._ranks.find(module, self._rank)
        alpha = self._alphas.find(module, self._alpha)
        if type(rank) is not int or rank < 1:
            raise refused(f"its rank_pattern gives {module} no whole number above 0")
        if not _is_alpha(alpha):
            raise refused(f"its alpha_pattern gives {module} no number above 0")
        return rank, alpha / (math.sqrt(rank) if self._rooted else rank)


def _is_alpha(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= _MAX_ALPHA


def _patterns(settings: Mapping[str, Any], name: str, modules: Sequence[str]) -> Patterns:
    said = settings.get(name) or {}
    found = Patterns.of(said, modules) if isinstance(said, dict) else None
    if found is None:
        raise refused(f"its {name} is no list of modules that is plain enough to be followed")
    return found


def _factors(
    place: tuple[int, str],
    pair: Mapping[str, Tensor],
    size: tuple[int, int],
    scales: _Scales,
    limit: RankLimit,
) -> Factors:
    module, (inputs, outputs) = _module(*place), size
    rank, scale = scales.of(module)
    if rank > limit.most:
        way = f"raise `{limit.setting}`, or train" if limit.setting else "train"
        raise refused(
            f"{module} has rank {rank} and the limit is {limit.most}", f"{way} it with a lower rank"
        )
    for side, wanted in (("A", (rank, inputs)), ("B", (outputs, rank))):
        found = pair[side].shape
        if found != wanted:
            raise refused(
                f"lora_{side} of {module} is {_by(found)} and should be {_by(wanted)}",
                "choose the base that it was trained on",
            )
    return Factors(*place, rank, scale, pair["A"], pair["B"])


def _module(layer: int, linear: str) -> str:
    return f"model.layers.{layer}.{_BLOCKS[linear]}.{linear}"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _shown(value: Any) -> str:
    return repr(value)[:60]
