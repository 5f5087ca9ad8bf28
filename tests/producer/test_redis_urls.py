"""Which broker URLs are understood, and how they are shown."""

from pathlib import Path

import pytest

from producer import Client, SettingsError
from producer.redis_urls import endpoint
from tests.valkey_server import ValkeyServer


@pytest.mark.parametrize(
    ("given", "for_redis_py", "shown"),
    [
        ("redis://", "redis://", "redis://localhost:6379/0"),
        ("redis://h:1/3", "redis://h:1/3", "redis://h:1/3"),
        ("redis://[fd00::1]:1/3", "redis://[fd00::1]:1/3", "redis://[fd00::1]:1/3"),
        ("redis://bücher.example/3", "redis://bücher.example/3", "redis://bücher.example:6379/3"),
        ("redis://my_redis./3", "redis://my_redis./3", "redis://my_redis.:6379/3"),
        ("redis://[fe80::1%eth0]:1/3", "redis://[fe80::1%eth0]:1/3", "redis://[fe80::1%eth0]:1/3"),
        ("redis://:s3cret@h/0", "redis://:s3cret@h/0", "redis://:**@h:6379/0"),
        ("rediss://u:s3cret@h/0", "rediss://u:s3cret@h/0", "rediss://u:**@h:6379/0"),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", "rediss://h/0?ssl_cert_reqs=none", "rediss://h:6379/0"),
        ("redis+socket:///run/r.sock?virtual_host=2", "unix:///run/r.sock?db=2", "redis+socket:///run/r.sock"),
        ("socket:///run/r.sock", "unix:///run/r.sock?db=0", "redis+socket:///run/r.sock"),
        ("unix://u:s3cret@/run/r.sock?db=1", "unix://u:s3cret@/run/r.sock?db=1", "redis+socket://u:**@/run/r.sock"),
    ],
)
def test_celerys_forms_are_understood_and_passwords_are_masked(given: str, for_redis_py: str, shown: str) -> None:
    read = endpoint(given, "NAMESHOT_BROKER_URL")

    assert read.url == for_redis_py
    assert read.shown == shown
    assert "s3cret" not in repr(read)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("amqp://guest@h//", r"must be one redis://, rediss:// or redis\+socket:// URL, not 'amqp'"),
        ("sentinel://h:26379", "Sentinel are not supported"),
        ("user:secret@h:6379", "not a text without a scheme"),
        ("redis://a;redis://b", "must be one"),
        ("localhost:6379", "must be one"),
        ("redis://h:port/0", "is not a URL"),
        ("redis://h/zero", "database number"),
        ("redis://a..b:6379/0", r"names the host 'a\.\.b', which cannot be one; it should look like redis://localhost"),
        ("redis://.redis:6379/0", r"names the host '\.redis'"),
        (f"redis://{'a' * 70}.example/0", "names the host 'aaaaaa"),
        ("redis://\udcff/0", r"names the host '\\udcff'"),
        ("redis://a%2e%2eb/0", "names the host 'a%2e%2eb'"),
        ("redis://a%00b/0", "names the host 'a%00b'"),
        ("redis://a b/0", "names the host 'a b'"),
        ("redis://:\udcff@h/0", "holds bytes that are not UTF-8; percent-encode them"),
        ("redis://h/0?ssl_ca_certs=\udcff", "holds bytes that are not UTF-8; percent-encode them"),
        ("redis+socket://", "names no socket"),
        ("redis://h/0?colour=red", "cannot be used: got an unexpected keyword argument 'colour'"),
    ],
)
def test_another_url_is_refused_when_the_client_is_made(url: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as refused:
        Client(url)

    assert str(refused.value).startswith("NAMESHOT_BROKER_URL ")


def test_a_client_shows_no_password() -> None:
    with Client("redis://:s3cret@h/0", "redis://:s3cret@h/1") as client:
        assert repr(client) == "Client(broker_url='redis://:**@h:6379/0', result_backend='redis://:**@h:6379/1')"


def test_a_unix_socket_carries_jobs(tmp_path: Path) -> None:
    path = tmp_path / "valkey.sock"
    with ValkeyServer(tmp_path, options=("--unixsocket", str(path))):
        urls = (f"redis+socket://{path}", f"redis+socket://{path}?virtual_host=1")
        with Client(*urls) as client:
            job = client.submit("https://images.example/owl.jpg", ["owl"])
            assert job.cancel()
            assert job.status() == "cancelled"
