from freehold.core.errors import Code
from freehold.serve.admin.jobs import JobsQuery, LogQuery, NewJob
from freehold.serve.openapi.codes import OWNED, TUNING, WITH_QUERY
from freehold.serve.openapi.entry import Entry
from freehold.serve.owner import OwnQuery
from freehold.serve.replies.jobs import Job, JobEstimate, JobList, JobLog

ENTRIES = [
    Entry(
        "get", "/admin/v1/jobs", "list_jobs", "administration",
        "Work beside the gateway, newest first", JobList, WITH_QUERY | OWNED,
        query=JobsQuery,
    ),
    Entry(
        "post", "/admin/v1/jobs", "start_job", "administration",
        "Train an adapter beside the gateway", Job, TUNING, NewJob, status=201,
    ),
    Entry(
        "post", "/admin/v1/jobs/estimate", "estimate_job", "administration",
        "What training an adapter would take; nothing is begun", JobEstimate, TUNING,
        NewJob,
    ),
    Entry(
        "get", "/admin/v1/jobs/{job}", "get_job", "administration",
        "A job: how far it is, or what came of it", Job, WITH_QUERY | OWNED,
        query=OwnQuery,
    ),
    Entry(
        "delete", "/admin/v1/jobs/{job}", "remove_job", "administration",
        "Remove a job that has ended, with what it said; what it made and decided stays", Job,
        WITH_QUERY | OWNED | {Code.CONFLICT}, query=OwnQuery,
    ),
    Entry(
        "get", "/admin/v1/jobs/{job}/log", "job_log", "administration",
        "The last lines of what its process said", JobLog, WITH_QUERY | OWNED,
        query=LogQuery,
    ),
    Entry(
        "post", "/admin/v1/jobs/{job}/cancel", "cancel_job", "administration",
        "Let a job end at its next checkpoint; one that has ended stays as it is", Job,
        WITH_QUERY | OWNED, query=OwnQuery,
    ),
    Entry(
        "post", "/admin/v1/jobs/{job}/resume", "resume_job", "administration",
        "Let a job that failed or was cancelled go on from its last checkpoint", Job,
        WITH_QUERY | OWNED | {Code.CONFLICT}, query=OwnQuery,
    ),
]  # fmt: skip
