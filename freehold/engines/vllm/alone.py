"""One process needs no way to talk to others. vLLM makes groups of processes even then,
and each opens a port on loopback, to which any user of the machine could connect."""

from typing import Any


def open_no_ports() -> None:
    """Before vLLM makes its groups, in the process that computes."""
    import vllm  # noqa: F401 - first, because it sets what torch reads
    from torch import distributed
    from torch.testing._internal.distributed import fake_pg  # noqa: F401 - "fake" is there now

    for name in ("init_process_group", "new_group"):
        setattr(distributed, name, _without_gloo(getattr(distributed, name)))


def _without_gloo(make: Any) -> Any:
    def made(*args: Any, **options: Any) -> Any:
        if options.get("backend") == "gloo":
            options["backend"] = "fake"
        return make(*args, **options)

    return made
