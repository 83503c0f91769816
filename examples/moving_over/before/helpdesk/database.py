"""The database of the help desk, and the factory of its sessions."""

from __future__ import annotations

import os

from helpdesk.models import Base
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

engine = create_engine(os.environ["DATABASE_URL"])
Session = sessionmaker(engine)


def create_tables() -> None:
    Base.metadata.create_all(engine)
