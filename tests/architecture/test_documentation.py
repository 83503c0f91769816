"""What has to be documented is."""

from __future__ import annotations

import inspect
import re

import pytest

import sqlalchemy_shards
from sqlalchemy_shards import errors, events
from sqlalchemy_shards.transactions import fail_points
from tests.architecture.source import ROOT

DOCS = ROOT / "docs"

ERRORS = [
    class_.__name__
    for _, class_ in inspect.getmembers(errors, inspect.isclass)
    if issubclass(class_, errors.ShardsError)
]
EVENTS = [
    class_.__name__
    for _, class_ in inspect.getmembers(events, inspect.isclass)
    if issubclass(class_, events.Event)
]
FAIL_POINTS = [
    value for name, value in vars(fail_points).items() if name.isupper() and isinstance(value, str)
]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_its_section(name: str) -> None:
    headings = re.findall(r"^## (\w+)$", _text("errors.md"), re.MULTILINE)

    assert name in headings


def test_the_errors_page_has_no_section_of_an_error_that_is_gone() -> None:
    headings = re.findall(r"^## (\w+)$", _text("errors.md"), re.MULTILINE)

    assert sorted(headings) == sorted(ERRORS)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_whether_it_may_be_retried(name: str) -> None:
    section = _text("errors.md").partition(f"\n## {name}\n")[2].partition("\n## ")[0]

    assert "**Retry:**" in section or name == "ShardsError"


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_in_the_reference(name: str) -> None:
    text = _text("reference/events.md")

    assert f"autoclass:: {name}\n" in text


@pytest.mark.parametrize("name", FAIL_POINTS)
def test_a_fail_point_stands_in_the_failure_table(name: str) -> None:
    table = _text("decisions/0019-what-fails-when.md")

    assert f"`{name}`" in table


@pytest.mark.parametrize("name", sorted(set(sqlalchemy_shards.__all__) - set(ERRORS)))
def test_a_public_name_is_in_the_reference(name: str) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))

    assert re.search(rf"^\.\. auto\w+:: {name}$", text, re.MULTILINE)


def test_no_two_decision_records_have_one_number() -> None:
    numbers = [path.name[:4] for path in sorted((DOCS / "decisions").glob("0*.md"))]

    assert len(numbers) == len(set(numbers))


def _text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")
