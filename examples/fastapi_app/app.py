"""A cluster under FastAPI: made when the application starts, one session for each request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import selectinload, sessionmaker

from sqlalchemy_shards import Cluster, ShardedSession
from sqlalchemy_shards.errors import ShardsError, TransactionInDoubt

from .models import Account, Base, Entry
from .schemas import Book, NewAccount, Page, Transfer

SHARDS_FILE = Path(__file__).parent / "shards.toml"


def start() -> Cluster:
    cluster = Cluster.from_file(SHARDS_FILE)
    cluster.create_all(Base.metadata)
    cluster.recover(older_than=timedelta(minutes=1))
    return cluster


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    cluster = await run_in_threadpool(start)
    app.state.cluster = cluster
    app.state.session_factory = sessionmaker(class_=ShardedSession, cluster=cluster)
    yield
    await run_in_threadpool(cluster.dispose)


app = FastAPI(lifespan=lifespan)


def get_session(request: Request) -> Iterator[ShardedSession]:
    with request.app.state.session_factory() as session:
        yield session


Session = Annotated[ShardedSession, Depends(get_session)]


@app.post("/accounts", status_code=201)
def open_account(new: NewAccount, session: Session) -> Book:
    session.add(Account(owner=new.owner, cents=new.cents))
    session.commit()
    return read_account(new.owner, session)


@app.get("/accounts/{owner}")
def read_account(owner: str, session: Session) -> Book:
    account = session.get(Account, owner, options=[selectinload(Account.entries)])
    if account is None:
        raise HTTPException(404, "no such account")
    return Book.model_validate(account)


@app.get("/accounts")
def richest(session: Session, offset: int = 0, limit: int = 5) -> Page:
    query = select(Account.owner).order_by(Account.cents.desc()).offset(offset).limit(limit)
    total, cents = session.execute(select(func.count(), func.sum(Account.cents))).one()
    return Page(owners=list(session.scalars(query)), total=total, cents=cents or 0)


@app.post("/transfers", status_code=201)
def transfer(order: Transfer, session: Session) -> Book:
    # Locked in one order, so that two transfers cannot wait for each other.
    accounts = {
        owner: session.get(Account, owner, with_for_update=True)
        for owner in sorted({order.payer, order.payee})
    }
    if None in accounts.values():
        raise HTTPException(404, "no such account")
    for owner, cents in ((order.payer, -order.cents), (order.payee, order.cents)):
        accounts[owner].cents += cents
        session.add(Entry(owner=owner, transfer=order.id, cents=cents))
    session.commit()  # on both shards or on none
    return read_account(order.payer, session)


@app.get("/ready")
def ready(request: Request) -> JSONResponse:
    report = request.app.state.cluster.check(Base.metadata, deadline_seconds=5)
    return JSONResponse(report.as_dict(), 200 if report.is_healthy else 503)


@app.exception_handler(IntegrityError)
def conflict(request: Request, error: IntegrityError) -> JSONResponse:
    return JSONResponse({"detail": "it is there already, or there is not enough money"}, 409)


@app.exception_handler(ShardsError)
def unavailable(request: Request, error: ShardsError) -> JSONResponse:
    """Say whether the client may send the request again."""
    detail = {"shard": error.shard, "retry": error.is_retryable}
    if isinstance(error, TransactionInDoubt):
        detail["transaction"] = error.gid  # for cluster.outcome()
    return JSONResponse({"detail": detail}, 503)
