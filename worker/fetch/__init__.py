"""Downloads from untrusted URLs: `Fetcher`.

The worker checks a URL before it resolves the host, checks all of the host's addresses before it connects to one of
them, and checks every redirect like a first request. A download fails with the code of the first rule that it breaks;
the table lists the rules roughly in the order in which the worker checks them:

======================  ==========================================================================================
code                    when
======================  ==========================================================================================
``scheme_not_allowed``  the URL begins with a scheme other than http or https (``data:``, ``file:``, …)
``invalid_url``         not a string; over 8,192 characters; a space, control character or backslash; no host; a user
                        name or password; a port that is not a number or above 65535; an IPv6 zone; a host that is not
                        made of DNS labels, or that ends in a number without being a dotted quad (``127.1``,
                        ``2130706433``, ``0x7f.1``)
``invalid_url``         a name that no public host can have: a single label (``localhost``, ``minio``), or under
                        ``.localhost``, ``.local``, ``.internal``, ``.home.arpa``, ``.onion``, ``.svc.cluster.local``
                        [exceptions]
``invalid_url``         an upload whose token is malformed, late or made with another secret (`worker.fetch.uploads`)
``host_not_allowed``    the host matches none of ``NAMESHOT_FETCH_HOSTS``
``port_not_allowed``    the port is not in ``NAMESHOT_FETCH_PORTS`` [exceptions]; port 0
``address_blocked``     the host is, or resolves to, an address that is not public [exceptions]
``host_unavailable``    the host failed too often recently, or no slot for it became free in time (`worker.fetch.hosts`)
``dns_failed``          the name could not be resolved
``connect_failed``      none of the host's first three addresses accepted a connection; the connection ended before the
                        worker had received the response's head; or the operator's proxy failed or refused to connect
``tls_failed``          the certificate is not valid for the name, or the TLS handshake failed for another reason
``bad_response``        not HTTP/1; a compressed body; contradictory or impossible lengths; headers, chunks or trailers
                        that RFC 9112 does not allow, that are too long, or of which there are too many
``bad_redirect``        a redirect without a target
``too_many_redirects``  more redirects than ``NAMESHOT_FETCH_REDIRECTS``, or a redirect to a URL already seen
``host_not_allowed``    a redirect from https to http
``http_status``         any status other than 200 and those of redirects (301, 302, 303, 307, 308)
``too_large``           more bytes than ``NAMESHOT_MAX_BYTES``, announced or counted
``truncated``           fewer bytes than announced, or a chunked body without its last chunk
``empty``               no bytes
``fetch_timeout``       the download exceeded its time limit, or the server stopped responding, in any phase
``out_of_memory``       the worker had no memory, threads or open files left
======================  ==========================================================================================

An exception in ``NAMESHOT_FETCH_ALLOW`` suspends the rules marked [exceptions] for connections to its addresses and
port. If a URL breaks one of these rules and some exception has the URL's port, the worker resolves the host before it
decides. If exceptions cover some of the host's addresses, the worker connects only to those; if they cover none, the
download fails with the code of the broken rule.

Uploads of the HTTP API, which an operator's secret protects, have a fetcher of their own (`worker.fetch.uploads`).
"""

from worker.fetch.coalescing import CoalescingFetcher, Downloads
from worker.fetch.fetcher import Fetcher
from worker.fetch.url_policy import UrlPolicy

__all__ = ["CoalescingFetcher", "Downloads", "Fetcher", "UrlPolicy"]
