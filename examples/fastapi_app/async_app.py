"""The same wallet over asyncio: a coroutine for each request, and no threads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import selectinload

from sqlalchemy_shards import AsyncCluster, AsyncRecoveryWorker, AsyncShardedSession
from sqlalchemy_shards.errors import ShardsError

from .app import SHARDS_FILE, conflict, unavailable
from .models import Account, Base, Entry
from .schemas import Book, NewAccount, Page, Transfer


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    cluster = AsyncCluster.from_file(SHARDS_FILE)
    await cluster.create_all(Base.metadata)
    app.state.cluster = cluster
    app.state.session_factory = async_sessionmaker(
        class_=AsyncShardedSession, cluster=cluster, expire_on_commit=False
    )
    async with AsyncRecoveryWorker(cluster):
        yield
    await cluster.dispose()


app = FastAPI(lifespan=lifespan)
app.add_exception_handler(IntegrityError, conflict)
app.add_exception_handler(ShardsError, unavailable)


async def get_session(request: Request) -> AsyncIterator[AsyncShardedSession]:
    async with request.app.state.session_factory() as session:
        yield session


Session = Annotated[AsyncShardedSession, Depends(get_session)]


@app.post("/accounts", status_code=201)
async def open_account(new: NewAccount, session: Session) -> Book:
    session.add(Account(owner=new.owner, cents=new.cents))
    await session.commit()
    return await read_account(new.owner, session)


@app.get("/accounts/{owner}")
async def read_account(owner: str, session: Session) -> Book:
    loaded = selectinload(Account.entries)
    account = await session.get(Account, owner, options=[loaded], populate_existing=True)
    if account is None:
        raise HTTPException(404, "no such account")
    return Book.model_validate(account)


@app.get("/accounts")
async def richest(session: Session, offset: int = 0, limit: int = 5) -> Page:
    query = select(Account.owner).order_by(Account.cents.desc()).offset(offset).limit(limit)
    total, cents = (await session.execute(select(func.count(), func.sum(Account.cents)))).one()
    return Page(owners=list(await session.scalars(query)), total=total, cents=cents or 0)


@app.post("/transfers", status_code=201)
async def transfer(order: Transfer, session: Session) -> Book:
    # Locked in one order, so that two transfers cannot wait for each other.
    accounts = {
        owner: await session.get(Account, owner, with_for_update=True)
        for owner in sorted({order.payer, order.payee})
    }
    if None in accounts.values():
        raise HTTPException(404, "no such account")
    for owner, cents in ((order.payer, -order.cents), (order.payee, order.cents)):
        accounts[owner].cents += cents
        session.add(Entry(owner=owner, transfer=order.id, cents=cents))
    await session.commit()  # on both shards or on none
    return await read_account(order.payer, session)


@app.get("/ready")
async def ready(request: Request) -> JSONResponse:
    report = await request.app.state.cluster.check(Base.metadata, deadline_seconds=5)
    return JSONResponse(report.as_dict(), 200 if report.is_healthy else 503)
