"""The TLS context of downloads, which trusts the public certificate authorities and the operator's own."""

from __future__ import annotations

import functools
import ssl

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context


@functools.cache
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Create a context for TLS 1.2 or later that checks host names; cached, since loading authorities takes 20 ms."""
    context = create_urllib3_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    context.load_verify_locations(cafile=DEFAULT_CA_BUNDLE_PATH)
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context
