"""An upload is fetched from the HTTP API's base URL under a valid token; no other URL reaches that address."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from producer.contract.upload_token import make_token
from producer.errors import SettingsError
from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, code_of, failure_of
from tests.fetch.servers import Exchange, Script, ScriptedServer
from tests.fetch.test_slots import Crowd, until
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.fetch import CoalescingFetcher
from worker.fetch.files import File, KnownFile
from worker.fetch.http_cache import CachingFetcher
from worker.fetch.uploads import Fetchers, UploadFetcher, UploadPolicy

SECRET = "s" * 32
NOW_S = 1_772_366_400.0
MALFORMED = "the upload's token is malformed; send it as the HTTP API made it."
FOREIGN = "the upload's token was not made with this worker's secret; give the HTTP API and the workers the same one."


def image_of(upload_id: str = "u_CANARY", expires_s: float = NOW_S + 60, secret: str = SECRET) -> str:
    return f"upload:{make_token(secret, upload_id, int(expires_s))}"


def token_of(image: str) -> str:
    return image.removeprefix("upload:")


def answer(exchange: Exchange) -> None:
    exchange.answer(IMAGE)


class Front:
    """The HTTP API's server of uploads, and the fetchers of a worker with its secret.

    Attributes:
        now_s: the time by which tokens expire.
    """

    def __init__(self, server: ScriptedServer, fetcher: Any, *, path: str = "", host: str = "", **options: Any) -> None:
        self.server = server
        self.now_s = NOW_S
        policy = UploadPolicy.parsed(server.url(path, host or None), SECRET, lambda: self.now_s)
        assert policy is not None
        usual = {"max_bytes": 1_000_000, "timeout_s": 5.0, "connection_quiet_s": 0.0}
        self.uploads = UploadFetcher(policy, **{**usual, **options})
        self.fetchers = Fetchers(fetcher, self.uploads)

    def fetch(self, image: str | None = None, **options: Any) -> bytes:
        return self.fetchers.fetch(image or image_of(), **options).take()

    def code(self, image: str | None = None, **options: Any) -> str:
        return failure_of(lambda: self.fetch(image, **options)).code


Start = Callable[..., Front]


@pytest.fixture
def start(serve: Serve, make_fetcher: MakeFetcher) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def begin(
            script: Script = answer, *, allow: Sequence[ScriptedServer] = (), tls: Any = None, **options: Any
        ) -> Front:
            front = Front(serve(script, tls=tls), make_fetcher(*allow), **options)
            stack.callback(front.fetchers.close)
            return front

        yield begin


@pytest.mark.parametrize("path", ["", "/", "/nameshot", "/nameshot/"])
def test_an_upload_is_requested_below_the_base_url(path: str, start: Start) -> None:
    front = start(path=path)

    assert front.fetch() == IMAGE

    (request,) = front.server.requests
    assert request.startswith(f"GET {path.rstrip('/')}/internal/uploads/{token_of(image_of())} HTTP/1.1\r\n")


def test_the_base_url_may_name_a_local_host_of_a_private_address(start: Start) -> None:
    front = start(host="web", resolve=lambda *_: ["127.0.0.1"])

    assert front.fetch() == IMAGE
    assert f"\r\nHost: web:{front.server.port}\r\n" in front.server.requests[0]


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ("upload:CANARY", MALFORMED),
        (image_of().rpartition(".")[0], MALFORMED),
        (
            image_of().replace("upload", "UPLOAD"),
            MALFORMED,
        ),
        (f"{image_of()}/../../../v1/events", MALFORMED),
        (f"upload://{token_of(image_of())}", MALFORMED),
        (
            f"{image_of().rpartition('.')[0]}.{image_of('u_other').rpartition('.')[2]}",
            FOREIGN,
        ),
        (
            image_of(secret="t" * 32),
            FOREIGN,
        ),
        (image_of(expires_s=NOW_S), "the upload's token has expired; upload the image again."),
    ],
)
def test_a_token_that_is_not_valid_opens_no_socket(image: str, sentence: str, start: Start) -> None:
    front = start()

    failure = failure_of(lambda: front.fetch(image))

    assert (failure.code, failure.message, failure.retryable) == ("invalid_url", sentence, False)
    assert front.server.connections == 0


def test_a_worker_without_a_secret_refuses_every_token(make_fetcher: MakeFetcher) -> None:
    failure = failure_of(lambda: Fetchers(make_fetcher(), None).fetch(image_of()))

    assert failure.code == "invalid_url"
    assert failure.message.startswith("this worker fetches no uploads; set NAMESHOT_UPLOAD_URL")


@pytest.mark.parametrize("path", ["/", "/internal/uploads/", "/v1/events", f"/internal/uploads/{token_of(image_of())}"])
def test_a_url_of_the_upload_server_s_own_address_is_blocked(
    path: str, start: Start, make_fetcher: MakeFetcher
) -> None:
    front = start()
    front.fetchers = Fetchers(make_fetcher(ports=str(front.server.port)), front.uploads)

    assert front.code(front.server.url(path)) == "address_blocked"
    assert front.server.connections == 0


def test_the_session_of_uploads_requests_nothing_but_uploads(start: Start) -> None:
    front = start()

    for url in (front.server.url("/internal/uploads/x"), "http://93.184.216.34/", "", 7):
        assert code_of(front.uploads, url) == "invalid_url"
    assert front.server.connections == 0


def test_no_redirect_of_another_server_leads_to_an_upload(serve: Serve, start: Start) -> None:
    targets: list[str] = []
    stranger = serve(lambda exchange: exchange.redirect(targets[-1]))
    front = start(allow=[stranger])

    for target, code in (
        (image_of(), "scheme_not_allowed"),
        (front.server.url(f"/internal/uploads/{token_of(image_of())}"), "port_not_allowed"),
    ):
        targets.append(target)
        assert front.code(stranger.url()) == code
    assert front.server.connections == 0


def test_a_redirect_of_an_upload_is_not_followed(serve: Serve, start: Start) -> None:
    stranger = serve(answer)
    targets = [stranger.url(), image_of("u_other"), "/internal/uploads/x", "/v1/events", "//[CANARY", ""]
    left = iter(targets)
    front = start(lambda exchange: exchange.redirect(next(left)), allow=[stranger])

    for _ in targets:
        assert front.code() == "too_many_redirects"
    assert len(front.server.requests) == len(targets)
    assert stranger.connections == 0


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (lambda exchange: exchange.answer(b"", "404 Not Found"), "http_status"),
        (lambda exchange: exchange.answer(b"", "410 Gone"), "http_status"),
        (lambda exchange: exchange.answer(b"x" * 101), "too_large"),
        (lambda exchange: exchange.answer(b""), "empty"),
        (lambda exchange: exchange.answer(IMAGE, headers=["Content-Encoding: gzip"]), "bad_response"),
        (lambda exchange: exchange.stall(), "fetch_timeout"),
        (lambda exchange: exchange.drip(b"HTTP", 0.05), "bad_response"),
    ],
)
def test_an_upload_has_the_limits_of_other_downloads(script: Script, code: str, start: Start) -> None:
    began_s = time.monotonic()

    assert start(script, max_bytes=100, timeout_s=0.5).code() == code
    assert time.monotonic() - began_s < 5


def test_an_upload_goes_through_no_proxy_of_the_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert start().fetch() == IMAGE


def test_uploads_wait_for_places_of_their_server(start: Start) -> None:
    crowd = Crowd()
    front = start(crowd, per_host=2)
    with ThreadPoolExecutor(5) as threads:
        downloads = [threads.submit(front.fetch, image_of(f"u_{number}")) for number in range(5)]
        until(lambda: crowd.most == 2)
        crowd.open.set()

        assert [download.result(10) for download in downloads] == [IMAGE] * 5
    assert crowd.most == 2


def test_a_cancelled_job_ends_its_upload_s_download(start: Start) -> None:
    scope = CancelScope(time.monotonic() + 60)

    def cancel(exchange: Exchange) -> None:
        scope.cancel()
        exchange.stall()

    front = start(cancel)

    with pytest.raises(Cancelled):
        front.fetch(scope=scope)


def test_jobs_of_one_token_share_a_download(start: Start) -> None:
    crowd = Crowd()
    front = start(crowd)
    shared = CoalescingFetcher[File](front.fetchers, 5.0)
    with ThreadPoolExecutor(2) as threads:
        downloads = [threads.submit(shared.fetch, image_of()) for _ in range(2)]
        until(lambda: crowd.most == 1)
        time.sleep(0.1)
        crowd.open.set()

        assert {download.result(10).sha256 for download in downloads} == {File(IMAGE).sha256}


def test_the_http_cache_keeps_a_token_apart_from_a_url_and_checks_it_each_time(
    start: Start, make_fetcher: MakeFetcher
) -> None:
    front = start(lambda exchange: exchange.answer(IMAGE, headers=["Cache-Control: max-age=600"]))
    front.fetchers = Fetchers(make_fetcher(front.server), front.uploads)
    known = {File(IMAGE).sha256: "its embedding"}
    caching = CachingFetcher(front.fetchers, known.get, max_bytes=100_000)

    assert isinstance(caching.fetch(image_of()), File)
    assert isinstance(caching.fetch(image_of()), KnownFile)
    assert isinstance(caching.fetch(image_of("u_other")), File)
    assert isinstance(caching.fetch(front.server.url(f"/internal/uploads/{token_of(image_of())}")), File)
    front.now_s = NOW_S + 60
    assert failure_of(lambda: caching.fetch(image_of())).code == "invalid_url"
    assert len(front.server.requests) == 3


def test_a_target_s_repr_shows_no_token(start: Start) -> None:
    assert repr(start().uploads.check(image_of())) == "<Target http>"


@pytest.mark.parametrize(
    "url",
    [
        "web:8000",
        "ftp://web/",
        "http://",
        "http://user:CANARY@web:8000",
        "http://web:8000/?CANARY",
        "http://web:8000/#CANARY",
        "http://web:0",
        "http://web :8000",
    ],
)
def test_a_base_url_that_cannot_work_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(
        SettingsError, match=r"^NAMESHOT_UPLOAD_URL cannot be used; write the base URL [^\n]*\.$"
    ) as refused:
        UploadPolicy.parsed(url, SECRET, time.time)

    assert "CANARY" not in str(refused.value)


def test_a_secret_without_a_url_or_a_url_without_a_secret_is_refused() -> None:
    with pytest.raises(SettingsError, match="NAMESHOT_UPLOAD_SECRET is set, but NAMESHOT_UPLOAD_URL is not; set both"):
        UploadPolicy.parsed("", SECRET, time.time)
    with pytest.raises(SettingsError, match="NAMESHOT_UPLOAD_URL is set, but NAMESHOT_UPLOAD_SECRET is not; set both"):
        UploadPolicy.parsed("http://web:8000", "", time.time)
    assert UploadPolicy.parsed("", "", time.time) is None
