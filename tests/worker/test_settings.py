"""Settings that cannot work are refused when they are read, before the first job."""

import re
import typing

import pytest

from producer.errors import SettingsError
from producer.settings import ProducerSettings, read_settings
from worker.settings import WorkerSettings


def takes_a_number(annotation: object) -> bool:
    """Return whether an annotation is `int` or `float`, or a union that contains one of them."""
    return annotation in (int, float) or any(map(takes_a_number, typing.get_args(annotation)))


NUMBERS = [name for name, field in WorkerSettings.model_fields.items() if takes_a_number(field.annotation)]


def test_the_numbers_among_the_settings_are_found() -> None:
    """The test below would prove nothing if it missed plain numbers, optional ones, or ones that may be `auto`."""
    assert {"result_ttl", "job_timeout", "reducing_gap", "max_batch"} <= set(NUMBERS)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "-1", str(10**30), "1e30"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_cannot_work_is_refused_in_one_sentence(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"NAMESHOT_{name.upper()}"
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as refused:
        read_settings(WorkerSettings)

    assert re.fullmatch(
        rf"{variable} is '?{re.escape(value)}'? and cannot be used; it should be [^\n]+\.", str(refused.value)
    )


def test_a_client_s_argument_has_the_same_bounds_as_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"^NAMESHOT_RESULT_TTL is .* less than or equal to \d+\.$"):
        read_settings(ProducerSettings, result_ttl=10**17)


@pytest.mark.parametrize("attempts", ["1", "2"])
def test_fewer_attempts_than_are_needed_to_identify_a_poison_job_are_refused(
    attempts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMESHOT_MAX_ATTEMPTS", attempts)

    with pytest.raises(SettingsError, match=f"NAMESHOT_MAX_ATTEMPTS is '{attempts}' .*greater than or equal to 3"):
        read_settings(WorkerSettings)


@pytest.mark.parametrize("secret", ["s", "s" * 31])
def test_a_short_secret_of_uploads_is_refused_without_being_shown(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMESHOT_UPLOAD_SECRET", secret)

    with pytest.raises(
        SettingsError, match=r"^NAMESHOT_UPLOAD_SECRET cannot be used; it should be at least 32 characters\.$"
    ):
        read_settings(WorkerSettings)


@pytest.mark.parametrize("secret", ["", "CANARY" * 6, "CANARY\n" * 6])
def test_a_longer_secret_of_uploads_or_none_is_accepted_and_in_no_repr(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMESHOT_UPLOAD_SECRET", secret)

    settings = read_settings(WorkerSettings)

    assert settings.upload_secret == secret
    assert "CANARY" not in repr(settings) + str(settings)
