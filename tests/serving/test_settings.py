from __future__ import annotations

from typing import Any

import pytest

from tests.serving.running import serve_settings
from visual_search.serving.app import create_app
from visual_search.serving.problems import KINDS, Problem


def test_the_token_is_never_written_out() -> None:
    settings = serve_settings(write_token="a-token-of-some-length")
    assert "a-token" not in repr(settings)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_k": 0}, "max_k is 0; expected at least 1"),
        ({"max_upload_bytes": -5}, "max_upload_bytes is -5; expected at least 1"),
        ({"read_seconds": 0}, "read_seconds is 0; expected more than 0 seconds"),
        ({"refresh_seconds": float("nan")}, "refresh_seconds is nan; expected more than 0"),
        ({"port": 70000}, "port is 70000; expected 0 to 65535"),
        ({"default_k": 200}, "default_k is 200, above max_k 100"),
        ({"trusted_hosts": ()}, "trusted_hosts is empty"),
        ({"write_token": "short"}, "write_token has 5 characters; expected at least 16"),
        ({"write_token": "with a blank in the token"}, "printable ASCII without blanks"),
        ({"write_token": "with-an-ümlaut-in-the-token"}, "printable ASCII without blanks"),
    ],
)
def test_values_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        serve_settings(**wrong)


def test_what_nobody_can_be_told_is_refused() -> None:
    with pytest.raises(ValueError, match="bundles is empty; expected at least one"):
        create_app([], serve_settings())
    with pytest.raises(KeyError, match="strange"):
        Problem("strange", "detail")
    assert all(400 <= status < 600 and title for status, title in KINDS.values())
