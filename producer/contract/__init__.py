"""The contract between producers and workers: what travels, and by which names."""

from producer.contract.job import (
    MAX_IMAGES_PER_MESSAGE,
    MAX_SCORES_PER_MESSAGE,
    ClassifyJob,
    ClassifyManyJob,
    Question,
    check_url_shape,
)
from producer.contract.labels import DEFAULT_TEMPLATE, fill
from producer.contract.names import (
    CLASSIFY,
    CLASSIFY_MANY,
    EXAMINE,
    QUEUES,
    SENT_AT_HEADER,
    Queue,
    answer_key,
    cancel_channel,
    claim_key,
    dead_letter_messages_key,
    dead_letters_key,
    in_flight_key,
    queue_name,
    workers_key,
)
from producer.contract.result import ImageInfo, Outcome, Result, Score, Timings, error_to_json

__all__ = [
    "CLASSIFY",
    "CLASSIFY_MANY",
    "DEFAULT_TEMPLATE",
    "EXAMINE",
    "MAX_IMAGES_PER_MESSAGE",
    "MAX_SCORES_PER_MESSAGE",
    "QUEUES",
    "SENT_AT_HEADER",
    "ClassifyJob",
    "ClassifyManyJob",
    "ImageInfo",
    "Outcome",
    "Question",
    "Queue",
    "Result",
    "Score",
    "Timings",
    "answer_key",
    "cancel_channel",
    "check_url_shape",
    "claim_key",
    "dead_letter_messages_key",
    "dead_letters_key",
    "error_to_json",
    "fill",
    "in_flight_key",
    "queue_name",
    "workers_key",
]
