"""The page itself: one file, and the policy that lets a browser run what is in it and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

_PARTS: Final = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


class PageFile(NamedTuple):
    """What is sent."""

    body: bytes
    headers: dict[str, str]


@cache
def page_file() -> PageFile:
    """Return the page with its headers: scripts and styles run by their hashes, and no text can become markup."""
    raw = Path(__file__).with_name("page.html").read_bytes()
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for name, text in _PARTS.findall(raw.decode()):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[name].append(f"'sha256-{digest}'")
    policy = (
        "default-src 'none'",
        f"script-src {' '.join(hashes['script'])}",
        f"style-src {' '.join(hashes['style'])}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "; ".join(policy),
        "cache-control": "no-cache",
        "etag": f'"{hashlib.sha256(raw).hexdigest()[:16]}"',
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "vary": "accept",
    }
    return PageFile(raw, headers)
