"""Which Redis URLs a client accepts, and how it shows them."""

import ssl
from pathlib import Path

import pytest

from producer import Client, SettingsError
from producer.broker.urls import endpoint
from tests.valkey_server import ValkeyServer


@pytest.mark.parametrize(
    ("given", "medium", "arguments", "shown"),
    [
        ("redis://", "tcp", {"host": "localhost", "port": 6379, "db": 0}, "redis://localhost:6379/0"),
        ("redis://h:1/3", "tcp", {"host": "h", "port": 1, "db": 3}, "redis://h:1/3"),
        (" REDIS://h:1/3/\n", "tcp", {"host": "h", "port": 1, "db": 3}, "redis://h:1/3"),
        ("redis://h?db=2", "tcp", {"host": "h", "port": 6379, "db": 2}, "redis://h:6379/2"),
        ("redis://h/1?db=2", "tcp", {"host": "h", "port": 6379, "db": 2}, "redis://h:6379/2"),
        ("redis://[fd00::1]:1/3", "tcp", {"host": "fd00::1", "port": 1, "db": 3}, "redis://[fd00::1]:1/3"),
        (
            "redis://bücher.example/3",
            "tcp",
            {"host": "bücher.example", "port": 6379, "db": 3},
            "redis://bücher.example:6379/3",
        ),
        ("redis://my_redis./3", "tcp", {"host": "my_redis.", "port": 6379, "db": 3}, "redis://my_redis.:6379/3"),
        (
            "redis://[fe80::1%eth0]:1/3",
            "tcp",
            {"host": "fe80::1%eth0", "port": 1, "db": 3},
            "redis://[fe80::1%eth0]:1/3",
        ),
        (
            "redis://:s3cret%2F%40@h/0",
            "tcp",
            {"host": "h", "port": 6379, "db": 0, "password": "s3cret/@"},
            "redis://:**@h:6379/0",
        ),
        (
            "redis://h/0?username=u&password=s3cret&protocol=3&client_name=me&socket_timeout=2.5&health_check_interval=9",
            "tcp",
            {
                "host": "h",
                "port": 6379,
                "db": 0,
                "username": "u",
                "password": "s3cret",
                "client_name": "me",
                "socket_timeout": 2.5,
                "health_check_interval": 9,
            },
            "redis://u:**@h:6379/0",
        ),
        (
            "rediss://u:s3cret@h/0",
            "tls",
            {
                "host": "h",
                "port": 6379,
                "db": 0,
                "username": "u",
                "password": "s3cret",
                "ssl_cert_reqs": "required",
                "ssl_check_hostname": True,
            },
            "rediss://u:**@h:6379/0",
        ),
        (
            "rediss://h/0?ssl_cert_reqs=CERT_NONE&ssl_min_version=TLSv1_3",
            "tls",
            {
                "host": "h",
                "port": 6379,
                "db": 0,
                "ssl_cert_reqs": "none",
                "ssl_check_hostname": False,
                "ssl_min_version": ssl.TLSVersion.TLSv1_3,
            },
            "rediss://h:6379/0",
        ),
        (
            "redis+socket:///run/r.sock?virtual_host=2",
            "unix",
            {"path": "/run/r.sock", "db": 2},
            "unix:///run/r.sock?db=2",
        ),
        ("socket:///run/r.sock", "unix", {"path": "/run/r.sock", "db": 0}, "unix:///run/r.sock?db=0"),
        (
            "unix://u:s3cret@/run/r.sock?db=1",
            "unix",
            {"path": "/run/r.sock", "db": 1, "username": "u", "password": "s3cret"},
            "unix://u:**@/run/r.sock?db=1",
        ),
    ],
)
def test_every_form_of_a_redis_url_is_accepted_and_passwords_are_masked(
    given: str, medium: str, arguments: dict[str, object], shown: str
) -> None:
    read = endpoint(given, "NAMESHOT_BROKER_URL")

    assert (read.medium, read.arguments, read.shown) == (medium, arguments, shown)
    assert endpoint(read.url, "NAMESHOT_BROKER_URL") == read
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
        (
            "redis://a..b:6379/0",
            r"names the host 'a\.\.b', which is not a valid host name; it should look like redis://localhost",
        ),
        ("redis://.redis:6379/0", r"names the host '\.redis'"),
        (f"redis://{'a' * 70}.example/0", "names the host 'aaaaaa"),
        ("redis://\udcff/0", r"names the host '\\udcff'"),
        ("redis://a%2e%2eb/0", "names the host 'a%2e%2eb'"),
        ("redis://a%00b/0", "names the host 'a%00b'"),
        ("redis://a b/0", "names the host 'a b'"),
        ("redis://:\udcff@h/0", "contains bytes that are not UTF-8; percent-encode them"),
        ("redis://h/0?ssl_ca_certs=\udcff", "contains bytes that are not UTF-8; percent-encode them"),
        ("redis+socket://", "names no socket"),
        ("redis+socket://run/r.sock", "names the host 'run' before a socket"),
        ("redis://:pass#word@h/0", "is not a URL"),
        ("redis://:12;word@h/0", "contains a ;, which separates URLs; in a password, percent-encode it as %3B"),
        ("redis://:12#word@h/0", "contains a #, which ends a URL; in a password, percent-encode it as %23"),
        ("redis://h:0/0", "is not a URL"),
        ("redis://h/0?colour=red", "has the unknown argument colour; known are db, virtual_host, username"),
        ("redis://h/0?decode_responses=true", "has the unknown argument decode_responses;"),
        ("redis://h/0?credential_provider=os.system", "has the unknown argument credential_provider;"),
        ("redis://h/0?s3cret!", "has the unknown argument \\(not shown\\);"),
        ("redis://h/0?db=1&db=2", "has the argument db twice"),
        ("redis://h/0?db=1&virtual_host=1", "has the argument virtual_host twice"),
        ("redis://h/0?password=", "has the argument password without a value"),
        ("redis://h/0?socket_timeout=0", "an invalid argument socket_timeout; it must be seconds, above 0"),
        ("redis://h/0?socket_timeout=nan", "it must be seconds, above 0 and at most 3,600"),
        ("redis://h/0?socket_connect_timeout=5000", "it must be seconds, above 0 and at most 3,600"),
        ("redis://h/0?health_check_interval=-1", "it must be whole seconds"),
        ("redis://h/0?protocol=4", "it must be 2 or 3"),
        ("redis://h/0?client_name=a+b", "it must be printable ASCII without spaces"),
        ("redis://h/0?ssl_cert_reqs=none", "has the argument ssl_cert_reqs, which only a rediss:// URL accepts"),
        ("redis://h/0?ssl=true", "has the unknown argument ssl;"),
        ("rediss://h/0?ssl_cert_reqs=perhaps", "it must be required, optional or none"),
        (
            "rediss://h/0?ssl_ca_certs=/no/such/file",
            "an invalid argument ssl_ca_certs; it must be the path of an existing file",
        ),
        (f"rediss://h/0?ssl_ca_certs={__file__}", "has ssl_ca_certs, ssl_ca_path or ssl_ca_data that OpenSSL cannot"),
        (f"rediss://h/0?ssl_certfile={__file__}", "has ssl_certfile and ssl_keyfile that OpenSSL cannot use"),
        ("rediss://h/0?ssl_ciphers=NONSENSE", "has ssl_ciphers that OpenSSL cannot use"),
        ("rediss://h/0?ssl_min_version=TLSv1", "it must be TLSv1_2 or TLSv1_3"),
        ("rediss://h/0?ssl_check_hostname=perhaps", "it must be true or false"),
        ("rediss://h/0?ssl_include_verify_flags=VERIFY_X", "names of ssl.VerifyFlags, and 'VERIFY_X' is not one"),
        ("rediss://h/0?ssl_validate_ocsp=true", "has the unknown argument ssl_validate_ocsp;"),
    ],
)
def test_an_invalid_url_is_refused_when_the_client_is_made(url: str, sentence: str) -> None:
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
