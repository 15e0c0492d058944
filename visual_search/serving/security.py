"""Who may ask, from where, and what a browser may do with the answer."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visual_search.serving.problems import Problem, problem_response

PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# A run's report is one file with its scripts inside. `sandbox` without `allow-same-origin` gives it
# an origin of its own: it cannot read this site, store anything or send what it knows.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
    "cache-control": "no-store",
}
_HOST = re.compile(
    r"(?:\[(?P<address>[0-9a-f.]*:[0-9a-f:.]*)\]|(?P<name>[0-9a-z._-]+))(?::(?P<port>[0-9]{0,5}))?",
    re.ASCII,
)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_logger = logging.getLogger(__name__)


class SecureAnswers:
    """Puts the security headers on every answer, and answers 500 where the application failed.

    A header that an answer has set itself (the report's policy, a picture's caching) stays.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, secured)
        except ClientDisconnect:  # nobody is there to answer
            return
        except Exception:
            _logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:  # half an answer is out: end the connection, so that nobody trusts it
                raise
            problem = Problem(
                "failed",
                "Something that should work did not; expected an answer; try again, and look into "
                "the server's log if it stays.",
            )
            await problem_response(Request(scope), problem)(scope, receive, secured)


class CheckSender:
    """Refuses requests by a name that is not ours, and changes that another site asks for.

    The first stops DNS rebinding: a foreign page whose name was turned to this machine's address
    asks by its own name. The second stops a foreign page's forms: browsers say where a POST comes
    from; programs do not send these headers and pass.

    Args:
        app: What is behind.
        trusted_hosts: Names without ports, in lower case; ``"*"`` accepts all.
    """

    def __init__(self, app: ASGIApp, trusted_hosts: Collection[str]) -> None:
        self._app = app
        self._trusted_hosts = frozenset(name.lower() for name in trusted_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        problem = self._host_problem(request) or cross_site_problem(request)
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(request, problem)(scope, receive, send)

    def _host_problem(self, request: Request) -> Problem | None:
        given = request.headers.get("host", "")
        name = host_name(given)
        if name in self._trusted_hosts or ("*" in self._trusted_hosts and (name or not given)):
            return None
        return Problem(
            "wrong-host",
            f"The request asks for the host {given[:100]!r}; expected one of "
            f"{sorted(self._trusted_hosts)}; name it in the server's trusted_hosts if it is yours.",
        )


def host_name(host: str) -> str:
    """Returns the name in a ``Host`` header: without its port, in lower case; "" where it has none.

    What else an address may hold, a user or a path, has no place there (RFC 9110, 7.2). A reader
    that looks past it would take ``evil.example@127.0.0.1`` for this machine.

    Example:
        >>> host_name("Shop.example:8000"), host_name("[::1]:8000"), host_name("evil@127.0.0.1")
        ('shop.example', '::1', '')
    """
    found = _HOST.fullmatch(host.lower())
    if found is None or int(found["port"] or 0) > 65535:
        return ""
    return found["address"] or found["name"]


def cross_site_problem(request: Request) -> Problem | None:
    """Returns why a change is refused: a browser says that another site asked for it."""
    if request.method in _SAFE_METHODS:
        return None
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        is_ours = site in ("same-origin", "none")
    elif origin is not None:
        is_ours = origin.partition("://")[2].lower() == request.headers.get("host", "").lower()
    else:
        is_ours = True
    if is_ours:
        return None
    return Problem(
        "cross-site",
        f"The browser sent this from {(origin or 'another site')[:100]!r}; expected this server's "
        "own page; open the page here, or call the API from a program.",
    )


def check_token(request: Request, token: str | None) -> None:
    """Checks that a request may write.

    Raises:
        Problem: Writing is off, or the request's token is missing or wrong.
    """
    if token is None:
        raise Problem(
            "writing-off",
            "This server was started without a token, so items can only be read; set "
            "VISUAL_SEARCH_TOKEN (write_token) and start it again to add and remove items.",
        )
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Both are compared as bytes and in full, so that the time tells nothing about the token.
    is_right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    if scheme.lower() != "bearer" or not is_right:
        raise Problem(
            "token-needed",
            "The Authorization header holds no token or another one; expected "
            "'Authorization: Bearer TOKEN' with the token that the server was started with.",
            headers={"www-authenticate": 'Bearer realm="visual_search"'},
        )
