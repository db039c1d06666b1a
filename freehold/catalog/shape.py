"""A stored model as facts: the shape that its own files tell."""

from freehold.catalog import checkpoint
from freehold.catalog.store import ModelStore
from freehold.core.errors import Code, UserError
from freehold.core.facts import ModelFacts, Source
from freehold.core.gguf import Header, read_header
from freehold.core.model import ModelCard


def facts_of(card: ModelCard, store: ModelStore) -> ModelFacts:
    """Raises `FILE_INVALID` where the files do not tell the shape of a decoder."""
    header = _header(card, store)
    is_known = header is not None and {"q_proj", "down_proj"} <= header.linears.keys()
    if header is None or not is_known or not header.layers or not header.heads:
        raise UserError(
            Code.FILE_INVALID,
            f"The files of {card.name} do not tell the shape of a decoder whose layers are alike: "
            "name a model of the facts instead.",
        )
    linears = sum(inputs * outputs for inputs, outputs in header.linears.values())
    # What the layers do not have is the embedding, and the head where it is not the same.
    tables = max(header.parameters - linears * header.layers, 0)
    matrices = 1 if header.parameters < 4e9 else 2
    return ModelFacts(
        id=card.name,
        name=card.name,
        params_b=header.parameters / 1e9,
        active_params_b=header.parameters / 1e9,
        layers=header.layers,
        hidden=header.embedding_length,
        heads=header.heads,
        kv_heads=header.kv_heads,
        head_dim=header.linears["q_proj"][1] // header.heads,
        vocabulary=tables // (header.embedding_length * matrices),
        context_length=card.context_length,
        architecture=card.architecture,
        licence=card.licence.spdx,
        may_be_sold=card.licence.commercial_use,
        licence_restriction=None,
        released=None,
        scores=(),
        sources=(Source(card.source),),
    )


def _header(card: ModelCard, store: ModelStore) -> Header | None:
    if card.format == "gguf":
        return read_header(store.path(card))
    return checkpoint.read(store.files(card))
