from freehold.core.errors import Code
from freehold.serve.admin.promotions import PromotionsQuery
from freehold.serve.openapi.codes import OWNED, PROMOTING, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.promotions import NewPromotion, NewRollback
from freehold.serve.replies.promotions import Promotion, PromotionList

ENTRIES = [
    Entry(
        "get", "/admin/v1/promotions", "list_promotions", "administration",
        "What was promoted into an environment, newest first", PromotionList,
        WITH_QUERY | OWNED, query=PromotionsQuery,
    ),
    Entry(
        "post", "/admin/v1/promotions", "promote", "administration",
        "Let what an alias leads to into the next environment, or give it another share there",
        Promotion, PROMOTING, NewPromotion, status=201,
    ),
    Entry(
        "get", "/admin/v1/promotions/{promotion}", "get_promotion", "administration",
        "A promotion: what moved, on which evidence, and how it does", Promotion,
        WITH_QUERY | OWNED, query=OwnQuery,
    ),
    Entry(
        "post", "/admin/v1/rollbacks", "roll_back", "administration",
        "Let an alias lead to what it led to before", Promotion,
        WITH_BODY | OWNED | {Code.CONFLICT}, NewRollback,
    ),
]  # fmt: skip
