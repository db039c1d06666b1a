from freehold.core.errors import Code
from freehold.serve.openapi.entry import Entry
from freehold.serve.replies.models import CardList, Model, ModelList

ENTRIES = [
    Entry(
        "get", "/v1/models", "list_models", "models",
        "The models this key may use", ModelList,
    ),
    Entry(
        "get", "/v1/models/{alias}", "get_model", "models",
        "One model", Model, frozenset({Code.MODEL_NOT_FOUND}),
    ),
    Entry(
        "get", "/admin/v1/models", "model_cards", "administration",
        "The cards of served models", CardList,
    ),
]  # fmt: skip
