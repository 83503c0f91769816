"""Many-to-many: secondary tables, association objects, association proxies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Integer,
    String,
    Table,
    delete,
    select,
)
from sqlalchemy.ext.associationproxy import association_proxy
from sqlalchemy.ext.orderinglist import ordering_list
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    attribute_keyed_dict,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)
from sqlalchemy.schema import ForeignKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

ACCOUNTS = range(1, 9)


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    def to(table: str, column: str) -> ForeignKeyConstraint:
        return ForeignKeyConstraint(
            ["account_id", column], [f"{table}.account_id", f"{table}.id"], ondelete="CASCADE"
        )

    playlist_tags = say.shard_table(
        Table(
            "playlist_tags",
            Base.metadata,
            Column("account_id", BigInteger, primary_key=True),
            Column("playlist_id", BigInteger, primary_key=True),
            Column("tag_id", BigInteger, primary_key=True),
            to("playlists", "playlist_id"),
            to("tags", "tag_id"),
        ),
        "account_id",
    )

    class OfAccount(say.sharded, Base):  # type: ignore[name-defined]
        __abstract__ = True
        __shard_key__ = "account_id"
        account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)

    class Genre(say.reference, Base):  # type: ignore[name-defined]
        __tablename__ = "genres"
        code: Mapped[str] = mapped_column(String(8), primary_key=True)

    class Song(OfAccount):
        __tablename__ = "songs"
        title: Mapped[str]

    class Tag(OfAccount):
        __tablename__ = "tags"
        word: Mapped[str]

    class Entry(say.sharded, Base):  # type: ignore[name-defined]
        """The association object: which song stands where in a playlist."""

        __tablename__ = "entries"
        __shard_key__ = "account_id"
        __table_args__ = (to("playlists", "playlist_id"), to("songs", "song_id"))
        account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        playlist_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        song_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        position: Mapped[int] = mapped_column(Integer)
        song: Mapped[Song] = relationship(overlaps="playlist,entries", lazy="joined")

        title = association_proxy("song", "title")

        def __init__(self, song: Any = None, **more: Any) -> None:
            super().__init__(song=song, **more)

    class Remark(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "remarks"
        __shard_key__ = "account_id"
        __table_args__ = (to("playlists", "playlist_id"),)
        account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        playlist_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        name: Mapped[str] = mapped_column(String, primary_key=True)
        text: Mapped[str]

    class Liking(say.sharded, Base):  # type: ignore[name-defined]
        """Between a sharded and a reference table."""

        __tablename__ = "likings"
        __shard_key__ = "account_id"
        __table_args__ = (to("playlists", "playlist_id"),)
        account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        playlist_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        genre_code: Mapped[str] = mapped_column(ForeignKey("genres.code"), primary_key=True)

    class Playlist(OfAccount):
        __tablename__ = "playlists"
        name: Mapped[str]
        entries: Mapped[list[Entry]] = relationship(
            order_by=Entry.position,
            collection_class=ordering_list("position"),
            cascade="all, delete-orphan",
        )
        songs = association_proxy("entries", "song")
        titles = association_proxy("entries", "title")
        tags: Mapped[list[Tag]] = relationship(
            secondary=playlist_tags, order_by=Tag.id, backref="playlists"
        )
        words = association_proxy("tags", "word")
        remarks: Mapped[dict[str, Remark]] = relationship(
            collection_class=attribute_keyed_dict("name"), cascade="all, delete-orphan"
        )
        remark_texts = association_proxy(
            "remarks", "text", creator=lambda name, text: Remark(name=name, text=text)
        )
        genres: Mapped[set[Genre]] = relationship(secondary=Liking.__table__)

    names = (Genre, Song, Tag, Entry, Remark, Liking, Playlist)
    return SimpleNamespace(metadata=Base.metadata, **{each.__name__: each for each in names})


@pytest.fixture
def music(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        genres = [m.Genre(code=code) for code in ("folk", "rock")]
        session.add_all(genres)
        session.flush()
        for number in ACCOUNTS:
            songs = [m.Song(account_id=number, id=each, title=f"s{each}") for each in (1, 2, 3)]
            tags = [m.Tag(account_id=number, id=each, word=f"w{each}") for each in (1, 2)]
            session.add_all([*songs, *tags])
            playlist = m.Playlist(account_id=number, id=1, name=f"list {number}")
            playlist.songs.extend(songs[:2])
            playlist.tags = tags
            playlist.remark_texts = {"a": f"a{number}", "b": "b"}
            playlist.genres = set(genres)
            session.add(playlist)
    return world


def lists(session: Any, m: Any, *options: Any) -> list[Any]:
    query = select(m.Playlist).options(*options).order_by(m.Playlist.account_id)
    return list(session.scalars(query).unique())


@pytest.mark.parametrize("loader", [joinedload, selectinload])
def test_every_collection_is_loaded(music: World, loader: Callable[..., Any]) -> None:
    m = music.models
    options = [
        loader(attribute)
        for attribute in (
            m.Playlist.entries,
            m.Playlist.tags,
            m.Playlist.remarks,
            m.Playlist.genres,
        )
    ]
    with music.session() as session:
        found = [
            (
                list(each.titles),
                list(each.words),
                dict(each.remark_texts),
                sorted(genre.code for genre in each.genres),
            )
            for each in lists(session, m, *options)
        ]

    assert found == [
        (["s1", "s2"], ["w1", "w2"], {"a": f"a{number}", "b": "b"}, ["folk", "rock"])
        for number in ACCOUNTS
    ]


def test_an_ordered_list_is_reordered(music: World) -> None:
    m = music.models
    with music.session() as session:
        for playlist in lists(session, m):
            playlist.songs.insert(0, session.get(m.Song, (playlist.account_id, 3)))
            playlist.entries.insert(0, playlist.entries.pop())
        session.commit()
        found = [list(each.titles) for each in lists(session, m)]

    assert found == [["s2", "s3", "s1"]] * len(ACCOUNTS)


def test_rows_of_a_secondary_table_are_added_removed_and_cleared(music: World) -> None:
    m = music.models
    with music.session() as session:
        first, second, third, *rest = lists(session, m)
        extra = m.Tag(account_id=1, id=9, word="new")
        first.tags.append(extra)
        second.tags.pop(0)
        third.tags.clear()
        session.delete(rest[0])
        tag = session.get(m.Tag, (5, 1))
        tag.playlists.clear()
        session.commit()
        found = [list(each.words) for each in lists(session, m)]

    assert found == [["w1", "w2", "new"], ["w2"], [], ["w2"], *[["w1", "w2"]] * 3]
    assert len(music.rows("SELECT * FROM playlist_tags")) == 3 + 1 + 1 + 6


def test_a_proxy_to_a_dictionary_is_written_through(music: World) -> None:
    m = music.models
    with music.session() as session:
        for playlist in lists(session, m):
            playlist.remark_texts["a"] = "changed"
            playlist.remark_texts["c"] = "new"
            del playlist.remark_texts["b"]
        session.commit()
        found = [dict(each.remark_texts) for each in lists(session, m)]

    assert found == [{"a": "changed", "c": "new"}] * len(ACCOUNTS)
    assert len(music.rows("SELECT * FROM remarks")) == 16


def test_orphans_of_an_association_are_deleted(music: World) -> None:
    m = music.models
    with music.session() as session:
        for playlist in lists(session, m):
            playlist.songs.remove(playlist.songs[0])
            playlist.genres.pop()
        session.commit()

    assert len(music.rows("SELECT * FROM entries")) == 8
    assert music.rows("SELECT DISTINCT position FROM entries") == [(0,)] * len(music.urls)
    assert len(music.rows("SELECT * FROM likings")) == 8
    assert len(music.rows("SELECT * FROM songs")) == 24


def test_comparisons_over_proxies_and_collections(music: World) -> None:
    m = music.models
    with music.session() as session:
        song = session.get(m.Song, (4, 2))
        of_song = session.scalars(select(m.Playlist).where(m.Playlist.songs.contains(song))).all()
        of_title = session.scalars(
            select(m.Playlist.account_id)
            .where(m.Playlist.entries.any(m.Entry.title == "s2"), m.Playlist.account_id.in_([1, 6]))
            .order_by(m.Playlist.account_id)
        ).all()
        of_word = session.scalars(
            select(m.Playlist.account_id)
            .where(m.Playlist.tags.any(m.Tag.word == "w1"))
            .order_by(m.Playlist.account_id)
        ).all()
        of_genre = session.scalars(
            select(m.Playlist.account_id)
            .where(~m.Playlist.genres.any(m.Genre.code == "jazz"))
            .order_by(m.Playlist.account_id)
        ).all()

    assert [each.account_id for each in of_song] == [4]
    assert of_title == [1, 6]
    assert of_word == of_genre == list(ACCOUNTS)


def test_the_database_cascades_where_the_rows_are(music: World) -> None:
    m = music.models
    with music.session() as session:
        session.execute(delete(m.Playlist).where(m.Playlist.account_id.in_([1, 2, 3, 4, 5])))
        session.commit()

    tables = ("playlist_tags", "entries", "remarks", "likings")
    assert [len(music.rows(f"SELECT * FROM {table}")) for table in tables] == [6, 6, 6, 6]
