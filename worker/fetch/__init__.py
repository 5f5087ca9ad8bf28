"""Downloads from untrusted URLs: `Fetcher`.

The worker checks a URL before it resolves the host, checks all addresses of a host before it connects to one of them,
and checks every redirect like a first request. A download fails with the code of the first rule that it breaks, in this
order:

======================  ==========================================================================================
code                    when
======================  ==========================================================================================
``scheme_not_allowed``  the URL begins with a scheme other than http or https (``data:``, ``file:``, …)
``invalid_url``         not a string; over 2,048 characters; a space, control character or backslash; no host; a user
                        name or password; a port that is not a number or above 65535; an IPv6 zone; a host that is not
                        made of DNS labels, or that ends in a number without being a dotted quad (``127.1``,
                        ``2130706433``, ``0x7f.1``)
``invalid_url``         a name that no public host can have: a single label (``localhost``, ``minio``), or under
                        ``.localhost``, ``.local``, ``.internal``, ``.home.arpa``, ``.onion``, ``.svc.cluster.local``
                        [exceptions]
``host_not_allowed``    the host matches none of ``NAMESHOT_FETCH_HOSTS``
``port_not_allowed``    the port is not in ``NAMESHOT_FETCH_PORTS`` [exceptions]; port 0
``address_blocked``     the host is, or resolves to, an address that is not public [exceptions]
``host_unavailable``    the host failed too often recently, or no slot for it came free in time (`worker.fetch.hosts`)
``dns_failed``          the name could not be resolved
``connect_failed``      none of at most three addresses could be connected to, or the connection broke off before an
                        answer, or within its head
``tls_failed``          the certificate is not valid for the name, or there is no common TLS
``bad_response``        not HTTP/1; a content encoding; contradictory or impossible lengths; headers, chunks or trailers
                        that RFC 9112 does not allow, or too many or too long ones
``bad_redirect``        a redirect without a target
``too_many_redirects``  a fourth redirect, or one to a URL already seen
``host_not_allowed``    a redirect from https to http
``http_status``         any status other than 200
``too_large``           more bytes than ``NAMESHOT_MAX_BYTES``, announced or counted
``truncated``           fewer bytes than announced, or no last chunk
``empty``               no bytes
``fetch_timeout``       the download exceeded its time limit, in any phase
======================  ==========================================================================================

An exception in ``NAMESHOT_FETCH_ALLOW`` suspends the rules marked [exceptions] for connections to its addresses and
port. Only resolving a name shows which addresses it has, so the worker resolves the host of a URL that breaks such a
rule only if some exception has the URL's port. If exceptions cover some of a name's addresses, the worker connects only
to those; if they cover none, the download fails with the code of the broken rule.
"""

from worker.fetch.coalescing import CoalescingFetcher, Downloads
from worker.fetch.fetcher import Fetcher
from worker.fetch.url_policy import UrlPolicy

__all__ = ["CoalescingFetcher", "Downloads", "Fetcher", "UrlPolicy"]
