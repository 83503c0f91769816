from __future__ import annotations

import pytest

from sqlalchemy_shards.topology.config import mask_password


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        (
            "postgresql+psycopg://app:hunter2@db0:5432/app",
            "postgresql+psycopg://app:***@db0:5432/app",
        ),
        ("postgresql://app@db0/app", "postgresql://app@db0/app"),
        ("postgresql://db0:5432/app", "postgresql://db0:5432/app"),
        ("postgresql://h1:5432,h2:5432/app", "postgresql://h1:5432,h2:5432/app"),
        ("postgresql://[::1]:5432/app", "postgresql://[::1]:5432/app"),
        ("postgresql://app@[::1]:5432/app", "postgresql://app@[::1]:5432/app"),
        ("postgresql://app:hunter2@[::1]/app", "postgresql://app:***@[::1]/app"),
        ("postgresql:///app?host=/tmp/x&port=5432", "postgresql:///app?host=/tmp/x&port=5432"),
        (
            "postgresql://db0/app?user=a&password=hunter2&x=1",
            "postgresql://db0/app?user=a&password=***&x=1",
        ),
        ("postgresql://db0/app?sslpassword=hunter2", "postgresql://db0/app?sslpassword=***"),
        ("", ""),
    ],
)
def test_database_url_is_shown_without_its_passwords(url: str, masked: str) -> None:
    assert mask_password(url) == masked


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app:hunter2",
        "postgresql://app:hunter2/db0",
        "postgresql://app:hun:ter2:hunter2@db0",
        "postgresql://app:p@ss/hunter2@db0/app",
        "postgresql://app:hunter2@db0:po/rt",
        "postgresql:/app:hunter2@db0",
        "app:hunter2@db0/app",
        "host=db0 password=hunter2 dbname=app",
        "host=db0 password='a b hunter2' dbname=app",
        "host=db0 PASSWORD = hunter2",
        "postgresql://app:a b hunter2@db0",
        "postgresql://app:hunter2@db0 postgresql://app:hunter2@db1",
    ],
)
def test_what_only_resembles_a_database_url_is_shown_without_a_password(text: str) -> None:
    assert "hunter2" not in mask_password(text)
