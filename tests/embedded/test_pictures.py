"""The picture server serves its pictures and files with a valid signature, and nothing else."""

import os
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from producer.embedded.pictures import PictureServer, file_url
from producer.errors import EmbeddedError

SECRET = "only known to the user"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "an owl #1.png"
    path.write_bytes(b"\x89PNG bytes")
    return path


def get(url: str, method: str = "GET") -> tuple[int, HTTPResponse, bytes]:
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    try:
        connection.request(method, parts.path)
        response = connection.getresponse()
        return response.status, response, response.read()
    finally:
        connection.close()


def test_the_server_serves_its_pictures_by_name(picture: Path) -> None:
    with PictureServer({"an owl.png": picture}) as server:
        status, response, body = get(server.picture_url("an owl.png"))

        assert (status, response.headers["Content-Type"], body) == (200, "image/png", b"\x89PNG bytes")
        assert response.headers["Content-Length"] == "10"
        assert get(server.picture_url("an owl.png"), "HEAD")[2] == b""
        assert server.picture_url("an owl.png") == f"{server.url}/pictures/an%20owl.png"
        assert b"/pictures/an owl.png" in get(f"{server.url}/")[2]


def test_the_server_serves_a_file_for_a_url_with_a_valid_signature(picture: Path) -> None:
    with PictureServer({}, secret=SECRET) as server:
        status, _, body = get(file_url(server.url, SECRET, picture))

        assert (status, body) == (200, b"\x89PNG bytes")


def test_the_worker_s_exception_permits_only_the_server_s_address_and_port(picture: Path) -> None:
    with PictureServer({"owl.png": picture}) as server:
        assert server.fetch_allow == f"127.0.0.1/32:{server.port}"


@pytest.mark.parametrize(
    "path",
    [
        "/pictures/other.png",
        "/pictures/../etc/passwd",
        "/pictures/..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "//etc/passwd",
        "/files/0123456789abcdef0123456789abcdef/L2V0Yy9wYXNzd2Q/passwd",
        "/files//L2V0Yy9wYXNzd2Q/passwd",
        "/files/x/%ff/x",
        "/files/x/a/x",
        "/?x",
    ],
)
def test_the_server_serves_no_other_path(path: str, picture: Path) -> None:
    with PictureServer({"owl.png": picture}, secret=SECRET) as server:
        status, _, body = get(server.url + path)

        assert status == (404 if path != "/?x" else 200)
        assert b"root:" not in body


def test_a_signature_is_valid_only_for_its_own_path_and_secret(picture: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(b"other")
    with PictureServer({}, secret=SECRET) as server, PictureServer({}) as without_secret:
        signed, signed_other = (urlsplit(file_url("", SECRET, path)).path for path in (picture, other))
        mixed = "/".join([*signed.split("/")[:3], *signed_other.split("/")[3:]])

        assert get(server.url + signed_other)[0] == 200
        assert get(server.url + mixed)[0] == 404
        assert get(file_url(server.url, "another secret", picture))[0] == 404
        assert get(without_secret.url + signed)[0] == 404


def test_pipes_and_folders_are_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with PictureServer({}, secret=SECRET) as server:
        assert get(file_url(server.url, SECRET, pipe))[0] == 404
        assert get(file_url(server.url, SECRET, tmp_path))[0] == 404


def test_a_taken_port_is_reported_in_one_sentence() -> None:
    with (
        PictureServer({}) as server,
        pytest.raises(EmbeddedError, match=rf"^port {server.port} on 127.0.0.1 cannot be used .*--port\.$"),
    ):
        PictureServer({}, port=server.port)
