"""What can go wrong, as ``application/problem+json`` (RFC 9457) or as a page.

Every kind of problem has a short name; its ``type`` leads to that name on the documentation page.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from visual_search.serving.templating import render

# name -> (status, title)
KINDS: Mapping[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "token-needed": (401, "The token is missing or wrong"),
    "writing-off": (403, "Writing is off"),
    "cross-site": (403, "The request comes from another site"),
    "not-found": (404, "There is nothing here"),
    "no-such-item": (404, "There is no such item"),
    "no-such-bundle": (404, "There is no such bundle"),
    "wrong-method": (405, "This address takes other methods"),
    "too-slow": (408, "The request took too long to arrive"),
    "too-large": (413, "The request is too large"),
    "wrong-media-type": (415, "This kind of content is not read here"),
    "not-a-picture": (415, "This is not a picture in a format that is read here"),
    "wrong-host": (421, "The server does not go by this name"),
    "invalid": (422, "A value cannot be used"),
    "bad-picture": (422, "The picture cannot be used"),
    "failed": (500, "The server made a mistake"),
    "overloaded": (503, "The server is busy"),
    "cannot-write": (503, "The bundle cannot be written now"),
    "no-database": (503, "The vector database does not answer now"),
}
# What a page says: for who shops, not for who writes programs.
_FOR_PEOPLE: Mapping[str, str] = {
    "bad-request": "What was sent could not be read. Start over and try again.",
    "cross-site": "Another site sent you here with a search. Start over to search here.",
    "not-found": "There is no page at this address. Start over to see the products.",
    "no-such-bundle": "This part of the catalogue is not here. Start over to see what is.",
    "wrong-method": "There is no page at this address. Start over to see the products.",
    "too-slow": "Your picture took too long to arrive. Send a smaller one.",
    "too-large": "Your picture is too large. Save it smaller and try again.",
    "wrong-media-type": "What was sent could not be read. Start over and try again.",
    "not-a-picture": "This file is no picture. Choose a JPEG, PNG, WebP, AVIF, GIF or BMP file.",
    "bad-picture": "This picture is damaged or too large. Save it anew, or choose another one.",
    "invalid": "This search cannot be answered. Start over and try again.",
    "failed": "Something that should work did not. Try again in a moment.",
    "overloaded": "Many people are searching just now. Try again in a moment.",
    "no-database": "The search is not available just now. Try again in a moment.",
}
_KIND_OF_STATUS = {400: "bad-request", 404: "not-found", 405: "wrong-method", 413: "too-large",
                   415: "wrong-media-type", 422: "invalid"}  # fmt: skip
_ADVICE = {
    404: "Start at / for the page or at /docs for the API.",
    405: "See /docs for the methods of every address.",
}


class Problem(HTTPException):
    """A request that cannot be answered; raised anywhere, written as the caller reads it.

    Args:
        kind: One of `KINDS`.
        detail: What was wrong with its value, what was expected, what to do.
        headers: Further headers of the answer.
        for_people: What a page says instead, where more can be said than of every such problem.

    Raises:
        KeyError: There is no such kind.

    Example:
        >>> Problem("invalid", "k is 0; expected 1 to 100").as_json()["status"]
        422
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        for_people: str = "",
    ) -> None:
        status, self.title = KINDS[kind]
        super().__init__(status, detail, dict(headers or {}))
        self.kind = kind
        # Nobody who shops sees the others, and who runs the server needs to know.
        self.for_people = for_people or _FOR_PEOPLE.get(kind, detail)

    def as_json(self) -> dict[str, object]:
        """Returns the members of RFC 9457."""
        return {
            "type": f"/docs#problem-{self.kind}",
            "title": self.title,
            "status": self.status_code,
            "detail": self.detail,
        }


def as_problem(error: HTTPException) -> Problem:
    """Returns what the framework raised (404, 405, an unreadable form) as one of our problems."""
    if isinstance(error, Problem):
        return error
    kind = _KIND_OF_STATUS.get(error.status_code, "failed")
    detail = f"{error.detail}. {_ADVICE.get(error.status_code, 'See /docs for what is expected.')}"
    return Problem(kind, detail, headers=error.headers)


def problem_response(request: Request, problem: Problem) -> Response:
    """Writes the problem: JSON for programs, a page (or its part, for htmx) for people."""
    headers = dict(problem.headers or {})
    if not wants_page(request):
        return JSONResponse(
            problem.as_json(), problem.status_code, headers, "application/problem+json"
        )
    part = "problem_part.html" if request.headers.get("hx-request") else "problem.html"
    return HTMLResponse(render(part, problem=problem), problem.status_code, headers)


def wants_page(request: Request) -> bool:
    """Whether a person reads the answer in a browser, rather than a program."""
    if request.url.path.startswith(("/api", "/healthz", "/metrics", "/openapi.json")):
        return False
    accepts = request.headers.get("accept", "")
    return "text/html" in accepts or "hx-request" in request.headers
