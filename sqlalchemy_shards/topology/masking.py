"""Passwords out of sight, also in text that only resembles a database URL.

Masking errs on the side of too much: what stands between the first colon of the authority and the
last ``@`` is taken for a password, whatever characters are in it.
"""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"

_SECRET_PARAMETER: Final = re.compile(
    r"""(?ix)
    ( [\w.-]* (?: pass(?:word|wd|phrase)? | pwd | secret | token ) [\w.-]* \s* (?: = | %3D ) \s* )
    ( '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | [^&\s]* )
    """
)


def mask_password(url: str) -> str:
    """Return a database URL, or something like one, with ``***`` for its passwords.

    >>> mask_password("postgresql+psycopg://app:s3cret@db0:5432/app?sslpassword=x")
    'postgresql+psycopg://app:***@db0:5432/app?sslpassword=***'
    >>> mask_password("postgresql://app:p@ss/w:rd@db0")
    'postgresql://app:***@db0'
    >>> mask_password("postgresql://db0:5432/app")
    'postgresql://db0:5432/app'
    """
    return _SECRET_PARAMETER.sub(rf"\1{MASK}", _mask_authority(url))


def _mask_authority(url: str) -> str:
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        scheme, rest = "", url
    user, colon, secret = rest.partition(":")
    if not colon:
        return url
    _, at, host = secret.rpartition("@")
    if at:
        return f"{scheme}{slashes}{user}:{MASK}@{host}"
    if _is_port(secret) or user == "[" or user.endswith("@["):  # [::1] is a host
        return url
    return f"{scheme}{slashes}{user}:{MASK}"  # half a URL: no host behind the password


def _is_port(text: str) -> bool:
    return re.match(r"[0-9]{1,5}(?:[/?#,\s]|$)", text) is not None
