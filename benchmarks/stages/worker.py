"""The real worker with clocks around its stages: ``celery -A benchmarks.stages.worker worker``.

No part of the worker is replaced, but functions are wrapped. The rest of the process's time counts as Celery's: its
event loop, kombu, the broker's messages, and threads that wake up. Environment, in addition to a worker's own:
    STAGES_PORT: the port on the loopback interface at which a GET returns the CPU time used so far.
"""

from __future__ import annotations

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from benchmarks.stages.clock import StageClock, native_threads_cpu_s
from worker import classifier
from worker.celery import app
from worker.decoding.preparing import InProcesses, InThreads
from worker.embeddings.label_cache import LabelCache
from worker.engine.batch_queue import BatchQueue
from worker.fetch.files import File
from worker.fetch.uploads import Fetchers
from worker.jobs.results import FirstAnswerBackend
from worker.model.dual import DualEncoder
from worker.model.interface import Logits

__all__ = ["app"]

CLOCK = StageClock()
#: The functions of each stage, with the class or module in which their callers look them up.
STAGES = (
    ("fetch", Fetchers, "fetch"),
    ("decode", InProcesses, "prepare"),
    ("decode", InThreads, "prepare"),
    ("digest", File, "__init__"),
    ("batching", BatchQueue, "submit"),
    ("batching", BatchQueue, "run_batch"),
    ("model", DualEncoder, "embed_images"),
    ("model", DualEncoder, "embed_texts"),
    ("rank", LabelCache, "_remember"),
    ("rank", Logits, "__call__"),
    ("rank", classifier, "scores"),
    ("rank", classifier, "rank"),
    ("job", classifier.Classifier, "classify"),
    ("job", classifier.Classifier, "classify_many"),
    ("job", classifier.Classifier, "_answer"),
    ("answer", FirstAnswerBackend, "begin"),
    ("answer", FirstAnswerBackend, "store_result"),
)


class _Reading(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        used = {"pid": os.getpid(), "process_s": time.process_time(), "native_s": native_threads_cpu_s()}
        body = json.dumps({**used, "stages_s": CLOCK.read()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the inherited name
        pass


for _stage, _owner, _name in STAGES:
    setattr(_owner, _name, CLOCK.timed(_stage, getattr(_owner, _name)))
if "STAGES_PORT" in os.environ:
    _server = HTTPServer(("127.0.0.1", int(os.environ["STAGES_PORT"])), _Reading)
    threading.Thread(target=_server.serve_forever, name="stages", daemon=True).start()
