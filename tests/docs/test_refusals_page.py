"""docs/refusals.md has an entry for every sentence with which the package refuses, and no other.

A new refusal fails here until it stands on the page. Add a row to the table of its chapter: the
sentence as the source has it, with … for each {value}, in backticks as the first cell; then why it
is refused, then what to do instead. The failing test prints the rows that are missing. Only the
sentence itself counts, not the advice behind it. What counts as a refusal is told in `refusals.py`.
"""

from __future__ import annotations

import re

import pytest

from tests.architecture.source import ROOT
from tests.docs.refusals import sentences

PAGE = ROOT / "docs" / "refusals.md"
SENTENCES = sentences()


def entries() -> list[tuple[str, ...]]:
    rows = re.findall(r"^\| (`.+`) \| (.*) \| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return [(sentence.strip("` "), why, instead) for sentence, why, instead in rows]


def test_sentences_are_found_in_all_chapters() -> None:
    for part in ("faults", "declare", "routing", "planning", "cluster", "session"):
        assert any(part in place for place in SENTENCES.values())


def test_every_refusal_is_on_the_page() -> None:
    told = {sentence for sentence, _, _ in entries()}
    missing = [
        f"| `{sentence}` | why | instead |   <- {place}"
        for sentence, place in SENTENCES.items()
        if sentence not in told
    ]

    assert not missing, "docs/refusals.md lacks these rows:\n" + "\n".join(missing)


def test_every_entry_is_a_refusal() -> None:
    gone = [sentence for sentence, _, _ in entries() if sentence not in SENTENCES]

    assert not gone, "docs/refusals.md has what nobody says any more:\n" + "\n".join(gone)


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry[0][:60])
def test_an_entry_tells_why_and_what_to_do(entry: tuple[str, ...]) -> None:
    _, why, instead = entry

    assert why.strip()
    assert instead.strip()
