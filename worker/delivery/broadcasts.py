"""Validates messages published to all workers, or to monitors of events, before kombu processes them.

kombu trusts every broadcast: one without ``properties``, or with deeply nested JSON, would end the event loop of every
worker that receives it.
"""

from __future__ import annotations

import json
import logging
from typing import Final

from producer.contract import strict_json

logger = logging.getLogger(__name__)

#: A command or an event has a few hundred bytes, and one message can carry many task events.
MAX_BROADCAST_BYTES: Final = 1024 * 1024


def checked(data: bytes) -> bytes:
    """Return a broadcast without its headers, which could make kombu decompress it; ``b""`` if it is malformed."""
    try:
        if len(data) > MAX_BROADCAST_BYTES:
            raise strict_json.NotStrictJson("it is too large")
        message = strict_json.loads(data)
        properties = message["properties"]
        delivery = properties["delivery_info"]
        texts = {name: message[name] for name in ("body", "content-type", "content-encoding")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError("a field is not a string")
        clean = {
            **texts,
            "headers": {},
            "properties": {
                "body_encoding": properties["body_encoding"],
                "delivery_tag": "",
                "delivery_info": {name: delivery[name] for name in ("exchange", "routing_key")},
            },
        }
        return json.dumps(clean).encode()
    except (strict_json.NotStrictJson, LookupError, TypeError) as error:
        logger.warning("ignored a malformed broadcast: %s", type(error).__name__)
        return b""
