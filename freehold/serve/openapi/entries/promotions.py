from freehold.core.errors import Code
from freehold.serve.admin.promotions import PromotionsQuery
from freehold.serve.openapi.codes import ABOUT_WEIGHTS, OWNED, PROMOTING, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.promotions import NewExport, NewPromotion, NewRollback
from freehold.serve.replies.promotions import Export, Promoted, Promotion, PromotionList

ENTRIES = [
    Entry(
        "get", "/admin/v1/promotions", "list_promotions", "administration",
        "What was promoted into an environment, newest first", PromotionList,
        WITH_QUERY | OWNED, query=PromotionsQuery,
    ),
    Entry(
        "post", "/admin/v1/promotions", "promote", "administration",
        "Let what an alias leads to into the next environment, or give it another share there",
        Promoted, PROMOTING | {Code.FILE_INVALID, Code.DISK_FULL}, NewPromotion, status=201,
    ),
    Entry(
        "post", "/admin/v1/promotions/export", "export_revision", "administration",
        "Write what an alias leads to for another installation, into a folder of the home",
        Export,
        WITH_BODY | ABOUT_WEIGHTS | {Code.CONFLICT, Code.GATE_NOT_PASSED, Code.DISK_FULL},
        NewExport, status=201,
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
