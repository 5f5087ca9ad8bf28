"""A setting that cannot be used is reported in the words of the environment."""

import pytest

from producer import Client, SettingsError


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("NAMESHOT_MAX_QUEUE", "many", "a valid integer"),
        ("NAMESHOT_QUEUE_PREFIX", "a b", "1 to 64 letters, digits, hyphens and underscores"),
    ],
)
def test_an_impossible_setting_is_reported_in_one_sentence_with_its_value(
    name: str, value: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as refused:
        Client()
    assert str(refused.value) == f"{name} is {value!r} and cannot be used; it should be {wanted}."
