"""What is published to all workers, or to monitors of events, looked at before kombu works on it.

kombu takes for granted what its own clients write: a text without ``properties``, or one that is nested deeply, would
end the event loop of every worker that hears it.
"""

from __future__ import annotations

import json
import logging
from typing import Final

from producer.contract import strict_json

logger = logging.getLogger(__name__)

#: A command or an event has some hundred bytes, and many events of tasks come in one message.
MAX_BROADCAST_BYTES: Final = 1024 * 1024


def checked(data: bytes) -> bytes:
    """The broadcast without its headers, which could have it decompressed; nothing for what is none."""
    try:
        if len(data) > MAX_BROADCAST_BYTES:
            raise strict_json.NotStrictJson("it is too large")
        message = strict_json.loads(data)
        properties = message["properties"]
        delivery = properties["delivery_info"]
        clean = {
            "body": message["body"],
            "content-type": message["content-type"],
            "content-encoding": message["content-encoding"],
            "headers": {},
            "properties": {
                "body_encoding": properties["body_encoding"],
                "delivery_tag": "",
                "delivery_info": {name: delivery[name] for name in ("exchange", "routing_key")},
            },
        }
        if not all(isinstance(clean[name], str) for name in ("body", "content-type", "content-encoding")):
            raise TypeError("a part is no text")
        return json.dumps(clean).encode()
    except (strict_json.NotStrictJson, LookupError, TypeError) as error:
        logger.warning("ignored a broadcast that is no message: %s", type(error).__name__)
        return b""
