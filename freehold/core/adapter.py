"""What an adapter is: LoRA weights for one base, which one tenant owns."""

from dataclasses import dataclass

from freehold.core.binding import Environment
from freehold.core.manifest import Manifest

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A stored PEFT adapter. `digest` is that of its two files together; the same files
    have the same digest whoever owns them. `name` is given once in a tenant's
    environment and never changes what it stands for."""

    id: str
    tenant_id: str
    environment: Environment
    name: str
    digest: str
    config_digest: str
    weights_digest: str
    base_digest: str
    rank: int
    scaling: str  # such as "2" or, where modules differ, "0.5 to 2"
    target_modules: tuple[str, ...]
    size_bytes: int
    source: str
    added_at_us: int
    manifest: Manifest | None = None  # None: nobody said where it comes from
