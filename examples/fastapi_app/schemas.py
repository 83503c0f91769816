"""What the application takes and gives."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict, PositiveInt


class NewAccount(BaseModel):
    owner: str
    cents: int = 0


class Transfer(BaseModel):
    id: UUID  # chosen by the client, so that a transfer that is sent twice is booked once
    payer: str
    payee: str
    cents: PositiveInt


class Line(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    transfer: UUID
    cents: int


class Book(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    owner: str
    cents: int
    entries: list[Line]


class Page(BaseModel):
    owners: list[str]
    total: int
    cents: int
