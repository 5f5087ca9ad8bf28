"""Downloads from untrusted URLs: `Fetcher`.

A URL is judged before its host is resolved; a name's addresses are judged before one of them is dialled; every redirect
is judged like a first request. The code is that of the first rule broken, in this order:

======================  ==========================================================================================
code                    when
======================  ==========================================================================================
``scheme_not_allowed``  the URL begins with a scheme other than http or https (``data:``, ``file:``, …)
``invalid_url``         not a string; over 2,048 characters; a space, control character or backslash; no host; a user
                        name or password; a port that is not a number or above 65535; an IPv6 zone; a host that is not
                        made of DNS labels, or that ends in a number without being a dotted quad (``127.1``,
                        ``2130706433``, ``0x7f.1``)
``invalid_url``         a name that is never a public host's: a single label (``localhost``, ``minio``), or under
                        ``.localhost``, ``.local``, ``.internal``, ``.home.arpa``, ``.onion``, ``.svc.cluster.local``
                        [exceptions]
``host_not_allowed``    the host matches none of ``NAMESHOT_FETCH_HOSTS``
``port_not_allowed``    the port is not in ``NAMESHOT_FETCH_PORTS`` [exceptions]; port 0
``address_blocked``     the host is, or any of the addresses it resolves to is, not public [exceptions]
``host_unavailable``    the host failed too often lately, or no slot for it came free in time (`worker.fetch.hosts`)
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
``fetch_timeout``       the download's time was up, in whatever phase
======================  ==========================================================================================

An exception of ``NAMESHOT_FETCH_ALLOW`` lifts the rows marked [exceptions] for connections that end at its addresses
and port. A name must be resolved to know where its connection ends, so the host of a URL that breaks such a rule is
resolved only if some exception has its port. Where exceptions cover some of a name's addresses, only those are dialled;
where they cover none, the code is that of the broken rule.
"""

from worker.fetch.address_policy import AllowedAddress, parse_allow
from worker.fetch.coalescing import CoalescingFetcher, Downloads
from worker.fetch.fetcher import Fetcher, mute_http_loggers
from worker.fetch.url_policy import parse_hosts, parse_ports

__all__ = [
    "AllowedAddress",
    "CoalescingFetcher",
    "Downloads",
    "Fetcher",
    "mute_http_loggers",
    "parse_allow",
    "parse_hosts",
    "parse_ports",
]
