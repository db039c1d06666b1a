"""Whether an adapter is served on what it was trained on: the same base, the same tokenizer, the
same chat template."""

from freehold.catalog.checkpoint import VOCABULARY
from freehold.core.adapter import Adapter
from freehold.core.errors import Code, UserError
from freehold.core.manifest import Manifest
from freehold.core.model import ModelCard


def tokenizer_digest(card: ModelCard) -> str:
    """Of its own file; a GGUF file holds its tokenizer, and is known as a whole."""
    found = (file.digest for file in card.files if file.name.rpartition("/")[2] == VOCABULARY)
    return next(found, card.digest)


def check_parity(name: str, manifest: Manifest | None, base: ModelCard) -> None:
    """Raises `ADAPTER_MISMATCH`. What a manifest does not say, and an adapter without one, is
    served as it always was: nobody knows where it comes from."""
    if manifest is None:
        return
    served = {
        "base": (manifest.base_digest, base.digest),
        "tokenizer": (manifest.tokenizer_digest, tokenizer_digest(base)),
        "chat template": (manifest.template_digest, base.chat_template_digest),
    }
    for what, (trained, serves) in served.items():
        if trained is not None and trained != serves:
            raise UserError(
                Code.ADAPTER_MISMATCH,
                f"{name} was trained with the {what} {trained[:19]}, and {base.name} serves with "
                f"{(serves or 'none')[:19]}: serve the base that it was trained on, or train it "
                "anew on this one.",
                param="adapter",
            )


def check_adapter(adapter: Adapter, base: ModelCard) -> None:
    check_parity(adapter.name, adapter.manifest, base)
