"""Credit is counted in images, not in messages."""

from typing import Any

import pytest

from worker.consumer import images_in


@pytest.mark.parametrize(
    ("task", "kwargs", "images"),
    [
        ("nameshot.classify", {"image": "http://x.example/y.png"}, 1),
        ("nameshot.classify_many", {"images": ["http://x.example/y.png"] * 32}, 32),
        ("nameshot.classify_many", {"images": []}, 1),
        ("nameshot.classify_many", {"images": 7}, 1),
        ("nameshot.classify_many", {}, 1),
    ],
)
def test_a_message_counts_as_the_images_it_holds_and_as_one_where_it_is_wrong(
    task: str, kwargs: dict[str, Any], images: int
) -> None:
    assert images_in(task, kwargs) == images
