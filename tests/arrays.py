"""Arrays as parameters are sent: their items, read back."""

from __future__ import annotations

import csv
from typing import Any


def items_of(value: Any) -> list[Any]:
    """The items of the text of an array, as text, None for NULL; a value that is none, alone."""
    if not isinstance(value, str) or not (value.startswith("{") and value.endswith("}")):
        return [value]
    (items,) = csv.reader([value[1:-1]], skipinitialspace=True)
    return [None if item == "NULL" else item for item in items]
