"""Run ``nameshot up``."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from producer.cli import output
from producer.demo.gallery import files_by_name, pictures
from producer.embedded.home import UpInfo, announced, data_folder, only_one
from producer.embedded.kept import Kept
from producer.embedded.pictures import PictureServer
from producer.embedded.supervise import supervise
from producer.embedded.system import embedded_system
from producer.embedded.worker import STOP_GRACE_S
from producer.settings import BUNDLED, PREFIX, ProducerSettings, read_settings


def run_up(port: int, redis_port: int | None, command: str, check: Callable[[], None]) -> None:
    """Start the system, print how to use it, and keep it running until ``check`` raises.

    Args:
        port: the picture server's port; 0 selects any free port.
        redis_port: Valkey's port; None selects that of the last run, or any free port.
        command: the command line with which the user runs nameshot.
        check: called a few times a second.
    """
    prefix = read_settings(ProducerSettings).queue_prefix
    folder = data_folder()
    settings = _settings()
    kept = Kept.read(folder)
    with (
        only_one(folder) as lock,
        PictureServer(files_by_name(), port=port, secret=kept.file_secret) as server,
        output.StartProgress() as stages,
        embedded_system(
            folder,
            server,
            persistent=True,
            settings=settings,
            inherit=[lock],
            kept=kept,
            redis_port=redis_port,
            stop_grace_s=STOP_GRACE_S,
            announce=stages.announce,
            on_poll=check,
        ) as (valkey, worker),
    ):
        kept.write(folder, valkey.port)
        info = UpInfo(
            pid=os.getpid(),
            broker_url=valkey.broker_url,
            result_backend=valkey.result_backend,
            queue_prefix=prefix,
            model=settings.get("NAMESHOT_MODEL", BUNDLED),
            url=server.url,
            file_secret=kept.file_secret,
        )
        with announced(folder, info):
            print(_welcome(info, server, folder, command), flush=True)
            try:
                supervise(valkey, worker, _say, check)
            finally:
                output.notice("stopping…")


def _settings() -> dict[str, str]:
    """Return the worker's settings, with absolute paths: its working directory is not the user's."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    for name in ("NAMESHOT_MODEL", "NAMESHOT_FETCH_CA_FILE"):
        value = settings.get(name, "")
        if value in ("", BUNDLED):
            continue
        with contextlib.suppress(OSError, RuntimeError):  # the worker reports an invalid path
            if (path := Path(value).expanduser()).exists():  # otherwise it may be the name of a model on the Hub
                settings[name] = str(path.absolute())
    return settings


def _welcome(info: UpInfo, server: PictureServer, folder: Path, command: str) -> str:
    first, *others = pictures()
    labels = " ".join(f"-l {label}" for label in first.candidate_labels)
    lines = [
        f"nameshot is up with the model {info.model}. Ctrl-C stops it.",
        "",
        "In a second terminal:",
        f"  {command} classify {server.picture_url(first.file)} {labels}",
        f"  {command} classify YOUR-PHOTO.jpg -l cat -l dog",
        f"  {command} doctor",
        "",
        "To set up a shell for your own programs:",
        f'  eval "$({command} env)"',
        "",
        "More pictures to try:",
        *(f"  {server.picture_url(picture.file)}" for picture in others),
        "",
        f"Data and logs: {folder}",
    ]
    if info.model == BUNDLED:
        lines.append("The bundled model is a toy that knows only emoji; for photographs, set NAMESHOT_MODEL.")
    return "\n".join(lines)


def _say(text: str) -> None:
    output.notice(f"{time.strftime('%H:%M:%S')} {text}")
