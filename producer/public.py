"""Every public name, in one place; `producer` offers them."""

from producer.aio import AsyncClient
from producer.answers import Answer, State
from producer.backlog import Backlog
from producer.client import Client
from producer.contract import ClassifyJob, ImageInfo, Outcome, Question, Queue, Result, Score, Timings
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
from producer.jobs import AsyncJob, Job
from producer.portions import BulkOutcome

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
