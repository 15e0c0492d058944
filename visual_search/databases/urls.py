"""Addresses of databases: where they are taken from, and shown without what is secret in them."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

URL_VARIABLE = "VISUAL_SEARCH_DATABASE_URL"
_SECRETS = ("password", "passwd", "sslpassword", "token", "api_key", "apikey")
_SECRET_FIELD = re.compile(rf"(?i)\b({'|'.join(_SECRETS)})=('[^']*'|[^&\s]*)")


def database_url(given: str | None, kind: str) -> str:
    """Returns the address that was given, or that the environment names.

    PostgreSQL's client has variables of its own (PGHOST, PGPASSWORD, a password file, ...), so that
    its address may be empty.

    Raises:
        ValueError: There is none, and the kind needs one.
    """
    url = given or os.environ.get(URL_VARIABLE, "")
    if not url and kind != "pgvector":
        raise ValueError(
            f"no address of {kind} is given; expected url=ADDRESS, or the variable {URL_VARIABLE} "
            "where the address holds a password: set one of them"
        )
    return url


def secrets_of(url: str) -> list[str]:
    """Returns the texts of an address that nobody is to see, as they stand and decoded.

    Example:
        >>> secrets_of("postgresql://shop:p%40ss@db/shop?sslpassword=key")
        ['p%40ss', 'p@ss', 'key']
    """
    found = []
    try:
        parts = urlsplit(url)
        authority = parts.netloc.rpartition("@")[0]
        if ":" in authority:
            found.append(authority.partition(":")[2])
    except ValueError:  # of an address with a wrong port or bracket
        pass
    found += [match.group(2).strip("'") for match in _SECRET_FIELD.finditer(url)]
    # A client takes a sign that should be written as %40 for the end of the password.
    found += [part for one in found for part in one.split("@")]
    return list(dict.fromkeys(form for one in found for form in (one, unquote(one)) if form))


def without_secrets(text: str, url: str) -> str:
    """Returns a text, as a server's answer, with the secrets of an address blotted out.

    Example:
        >>> url = "postgresql://shop:hunter2@db/shop"
        >>> without_secrets(url, url)
        'postgresql://shop:***@db/shop'
    """
    for secret in sorted(secrets_of(url), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def user_and_password(url: str) -> tuple[str, str, str]:
    """Returns an address without its user and password, and these two, decoded; empty for none.

    Example:
        >>> user_and_password("https://:key@qdrant.shop:6333")
        ('https://qdrant.shop:6333', '', 'key')
    """
    authority, found, _ = urlsplit(url).netloc.rpartition("@")
    if not found:
        return url, "", ""
    user, _, password = authority.partition(":")
    return url.replace(f"{authority}@", "", 1), unquote(user), unquote(password)
