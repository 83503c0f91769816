"""Four versions of an application, of which two run at a time. `label` is what each one shows.

    version 1    name
    version 2    writes name and full_name, reads name
    version 3    writes both, reads full_name
    version 4    full_name

Each has models of its own, as it would in a deployment of its own.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, synonym

from sqlalchemy_shards import ShardKeyMixin


class Base1(DeclarativeBase):
    pass


class Base2(DeclarativeBase):
    pass


class Base3(DeclarativeBase):
    pass


class Base4(DeclarativeBase):
    pass


class _Customer(ShardKeyMixin):
    __tablename__ = "customers"
    __shard_key__ = "id"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class Customer1(_Customer, Base1):
    name: Mapped[str] = mapped_column(String(50))
    label = synonym("name")

    @staticmethod
    def labelled(label: str) -> dict[str, Any]:
        return {"name": label}


class Customer2(_Customer, Base2):
    name: Mapped[str] = mapped_column(String(50))
    full_name: Mapped[str | None] = mapped_column(String(200))
    label = synonym("name")

    @staticmethod
    def labelled(label: str) -> dict[str, Any]:
        return {"name": label, "full_name": label}


class Customer3(_Customer, Base3):
    name: Mapped[str | None] = mapped_column(String(50))
    full_name: Mapped[str] = mapped_column(String(200))
    label = synonym("full_name")

    @staticmethod
    def labelled(label: str) -> dict[str, Any]:
        return {"name": label, "full_name": label}


class Customer4(_Customer, Base4):
    full_name: Mapped[str] = mapped_column(String(200))
    label = synonym("full_name")

    @staticmethod
    def labelled(label: str) -> dict[str, Any]:
        return {"full_name": label}
