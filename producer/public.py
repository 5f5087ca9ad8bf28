"""All public names, which `producer` re-exports lazily."""

from producer.client.aio import AsyncClient
from producer.client.blocking import Client
from producer.client.jobs import AsyncJob, Job
from producer.client.portions import BulkOutcome
from producer.contract.job import ClassifyJob, Question
from producer.contract.names import Queue
from producer.contract.result import ImageInfo, Outcome, Result, Score, Timings
from producer.errors import (
    BrokerUnavailable,
    InvalidJob,
    JobCancelled,
    JobConflict,
    JobExpired,
    JobFailed,
    JobNotFound,
    NameshotError,
    QueueFull,
    ResultTimeout,
    SettingsError,
)
from producer.operations.answers import Answer, State
from producer.operations.backlog import Backlog

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncJob",
    "Backlog",
    "BrokerUnavailable",
    "BulkOutcome",
    "ClassifyJob",
    "Client",
    "ImageInfo",
    "InvalidJob",
    "Job",
    "JobCancelled",
    "JobConflict",
    "JobExpired",
    "JobFailed",
    "JobNotFound",
    "NameshotError",
    "Outcome",
    "Question",
    "Queue",
    "QueueFull",
    "Result",
    "ResultTimeout",
    "Score",
    "SettingsError",
    "State",
    "Timings",
]
