"""A token names an upload to the programs that know the secret, and to no other."""

import base64
import hashlib
import hmac
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer import Client
from producer.contract.image_url import check_url_shape
from producer.contract.upload_token import TokenRefused, check_token, has_token, is_upload, make_token
from producer.errors import InvalidJob, JobFailed

SECRET = "s" * 32
NOW_S = 1_772_366_400
TOKEN = make_token(SECRET, "u_5rq0c1v2m8", NOW_S + 60)
OTHER = make_token(SECRET, "u_other", NOW_S + 60)
MAC = TOKEN.rpartition(".")[2]
MALFORMED = [
    "",
    "v1",
    TOKEN.upper(),
    TOKEN.replace("v1", "v2"),
    TOKEN.rpartition(".")[0],
    TOKEN[:-1],
    f"{TOKEN}=",
    f"{TOKEN}==",
    f"{TOKEN}\n",
    f" {TOKEN}",
    f"{TOKEN}/../../v1/events",
    f"v1..{NOW_S + 60}.{MAC}",
    f"v1.{'x' * 65}.{NOW_S + 60}.{MAC}",
    f"v1.../..{NOW_S + 60}.{MAC}",
    f"v1.a/b.{NOW_S + 60}.{MAC}",
    f"v1.a%2fb.{NOW_S + 60}.{MAC}",
    f"v1.ä.{NOW_S + 60}.{MAC}",
    f"v1.a.0{NOW_S + 60}.{MAC}",
    f"v1.a.-1.{MAC}",
    f"v1.a.1e9.{MAC}",
    f"v1.a.٣.{MAC}",
    f"v1.a.{10**11}.{MAC}",
    f"v1.a.{NOW_S}.{'A' * 21}B",
]


def refusal(token: str, secret: str = SECRET, now_s: float = NOW_S) -> str:
    with pytest.raises(TokenRefused) as caught:
        check_token(secret, token, now_s)
    return str(caught.value)


def test_a_token_names_its_upload_until_it_expires() -> None:
    assert check_token(SECRET, TOKEN, NOW_S) == "u_5rq0c1v2m8"
    assert check_token(SECRET, TOKEN, NOW_S + 59.9) == "u_5rq0c1v2m8"
    assert refusal(TOKEN, now_s=NOW_S + 60) == "has expired; upload the image again."


def test_the_page_s_token_is_ours_and_made_as_the_page_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()
    found = re.search(r"`upload:(v1\.(\w+)\.(\d+)\.[\w-]{22})`.*?`(\S{32,})`", page, re.DOTALL)
    assert found
    token, upload_id, expires_s, secret = found.groups()
    digest = hmac.new(secret.encode(), f"v1.{upload_id}.{expires_s}".encode(), hashlib.sha256).digest()

    assert make_token(secret, upload_id, int(expires_s)) == token
    assert token.endswith("." + base64.urlsafe_b64encode(digest[:16]).decode().removesuffix("=="))


@pytest.mark.parametrize("token", MALFORMED)
def test_a_malformed_token_is_refused(token: str) -> None:
    assert refusal(token).startswith("is malformed")
    assert not has_token(f"upload:{token}")


@pytest.mark.parametrize(
    "token",
    [
        f"{TOKEN.rpartition('.')[0]}.{OTHER.rpartition('.')[2]}",
        TOKEN.replace("u_5rq0c1v2m8", "u_5rq0c1v2m9"),
        TOKEN.replace(str(NOW_S + 60), str(NOW_S + 61)),
        f"{TOKEN.rpartition('.')[0]}.{'A' * 22}",
    ],
)
def test_a_token_with_the_mac_of_another_is_refused(token: str) -> None:
    assert refusal(token).startswith("was not made with this worker's secret")


def test_another_secret_s_token_is_refused_and_so_is_one_that_is_late_as_well() -> None:
    assert refusal(TOKEN, secret="t" * 32).startswith("was not made with this worker's secret")
    assert refusal(TOKEN, secret="t" * 32, now_s=NOW_S * 2).startswith("was not made with this worker's secret")


@given(st.text(max_size=90), st.integers(-9, 10**12))
def test_only_tokens_of_the_right_form_are_made(upload_id: str, expires_s: int) -> None:
    try:
        token = make_token(SECRET, upload_id, expires_s)
    except ValueError:
        return
    assert check_token(SECRET, token, 0) == upload_id
    assert has_token(f"upload:{token}")


@pytest.mark.parametrize("image", ["upload:", "Upload:x", "UPLOAD:v1.a", "upload://host/x"])
def test_anything_with_the_scheme_is_to_be_an_upload(image: str) -> None:
    assert is_upload(image)


@pytest.mark.parametrize("image", ["", "upload", "uploads:x", " upload:x", "http://upload:80/"])
def test_nothing_else_is_to_be_an_upload(image: str) -> None:
    assert not is_upload(image)


def test_a_client_accepts_a_token_in_place_of_a_url() -> None:
    assert check_url_shape(f"upload:{TOKEN}") == f"upload:{TOKEN}"


@pytest.mark.parametrize("image", [f"upload:{token}" for token in MALFORMED] + [f"UPLOAD:{TOKEN}", f"upload://{TOKEN}"])
def test_a_client_refuses_any_other_use_of_the_scheme(image: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        check_url_shape(image, "url")

    assert str(caught.value) == "url must follow upload: with a token as the HTTP API makes it, or be an http(s) URL."
    with Client("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0") as client:  # no Redis listens there
        (outcome,) = client.classify_many([image], ["fox", "owl"])
    assert isinstance(outcome.error, JobFailed)
    assert outcome.error.code == "invalid_url"
