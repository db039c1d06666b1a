from freehold.core.errors import Code
from freehold.serve.admin.evaluations import NewEvaluation
from freehold.serve.openapi.codes import OWNED, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.replies.evaluations import Evaluation
from freehold.serve.replies.jobs import Job

ENTRIES = [
    Entry(
        "post", "/admin/v1/evaluations", "start_evaluation", "administration",
        "Ask a route the questions of a suite, and decide whether it may serve", Job,
        WITH_BODY | OWNED | {Code.FILE_INVALID, Code.DISK_FULL}, NewEvaluation, status=201,
    ),
    Entry(
        "get", "/admin/v1/evaluations/{job}", "get_evaluation", "administration",
        "An evaluation with all that it found", Evaluation, WITH_QUERY | OWNED,
        query=OwnQuery,
    ),
]  # fmt: skip
