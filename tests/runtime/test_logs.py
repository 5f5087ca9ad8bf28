"""No log line holds the path of a URL or an upload's token, whichever library wrote the line."""

import pytest

from worker.runtime.logs import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://h.example/CANARY?CANARY now", "at http://h.example/… now"),
        ("at https://u:CANARY@h.example:81/", "at https://h.example:81/…"),
        ('{"image": "upload:v1.CANARY.1772370000.CANARY", "top_k": 1}', '{"image": "upload:… "top_k": 1}'),
        ("UPLOAD:CANARY is malformed", "UPLOAD:… is malformed"),
        ("http://web:8000/internal/uploads/v1.CANARY.1.CANARY", "http://web:8000/…"),
        ("url must follow upload: with a token", "url must follow upload: with a token"),
    ],
)
def test_a_line_is_redacted(text: str, shown: str) -> None:
    assert redact(text) == shown
