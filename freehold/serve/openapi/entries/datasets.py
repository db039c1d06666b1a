from freehold.core.errors import Code
from freehold.serve.admin.datasets import FeedbackDataset, NewDataset
from freehold.serve.admin.paging import PageQuery
from freehold.serve.openapi.codes import OWNED, WITH_BODY, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.replies.datasets import Dataset, DatasetAndReport, DatasetList

ENTRIES = [
    Entry(
        "get", "/admin/v1/datasets", "list_datasets", "administration",
        "The datasets of this tenant and environment, the oldest first", DatasetList,
        WITH_QUERY | OWNED, query=PageQuery,
    ),
    Entry(
        "post", "/admin/v1/datasets", "add_dataset", "administration",
        "Take in a dataset that lies in the home's upload folder; the same again changes "
        "nothing", Dataset,
        WITH_BODY | {
            Code.NOT_FOUND, Code.CONFLICT, Code.DISK_FULL, Code.FILE_INVALID, Code.FILE_REFUSED,
        },
        NewDataset, status=201,
    ),
    Entry(
        "post", "/admin/v1/datasets/from-feedback", "dataset_from_feedback", "administration",
        "Make a dataset of what people said of answers, where what was said is kept",
        DatasetAndReport,
        WITH_BODY | {
            Code.NOT_FOUND, Code.CONFLICT, Code.DISK_FULL, Code.FILE_INVALID, Code.FILE_REFUSED,
            Code.OVERLOADED,
        },
        FeedbackDataset, status=201,
    ),
    Entry(
        "get", "/admin/v1/datasets/{dataset}", "get_dataset", "administration",
        "One dataset and its report, by name (the newest version), name@version, id or digest",
        DatasetAndReport, WITH_QUERY | OWNED, query=OwnQuery,
    ),
    Entry(
        "delete", "/admin/v1/datasets/{dataset}", "remove_dataset", "administration",
        "Remove one version of a dataset", Dataset, WITH_QUERY | OWNED, query=OwnQuery,
    ),
]  # fmt: skip
