"""Flask-SQLAlchemy's quickstart on a cluster."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, request
from sqlalchemy import func
from sqlalchemy.orm import joinedload

from .models import Post, SignUp, User, db

if TYPE_CHECKING:
    from uuid import UUID

SHARDS_FILE = Path(__file__).parent / "shards.toml"


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"postgresql+shards:///{SHARDS_FILE}"
    app.config["SQLALCHEMY_BINDS"] = {"audit": "sqlite://"}
    db.init_app(app)
    with app.app_context():
        create_tables()
    app.add_url_rule("/users", view_func=user_list)
    app.add_url_rule("/users", view_func=user_create, methods=["POST"])
    app.add_url_rule("/users/<uuid:id>", view_func=user_detail)
    app.add_url_rule("/users/<uuid:id>", view_func=user_delete, methods=["DELETE"])
    app.add_url_rule("/by-name/<username>", view_func=user_by_name)
    app.add_url_rule("/by-name/<username>/posts", view_func=post_create, methods=["POST"])
    app.add_url_rule("/posts", view_func=post_list)
    return app


def create_tables() -> None:
    """Prepare the shards, and create the tables that are missing."""
    db.session().cluster.bootstrap()
    db.create_all()


def user_list() -> dict[str, Any]:
    page = db.paginate(db.select(User).order_by(User.joined.desc(), User.id), per_page=5)
    return {
        "users": [user.username for user in page],
        "page": page.page,
        "pages": page.pages,
        "total": page.total,
    }


def user_create() -> tuple[dict[str, Any], int]:
    form = request.get_json()
    user = User(
        username=form["username"],
        email=form["email"],
        joined=date.fromisoformat(form["joined"]),
    )
    db.session.add_all([user, SignUp(email=user.email)])
    db.session.commit()
    return show(user), 201


def user_detail(id: UUID) -> dict[str, Any]:
    return show(db.get_or_404(User, id))  # the id does not tell the shard: all are asked


def user_by_name(username: str) -> dict[str, Any]:
    return show(db.one_or_404(db.select(User).filter_by(username=username)))  # one shard is asked


def user_delete(id: UUID) -> tuple[str, int]:
    db.session.delete(db.get_or_404(User, id))
    db.session.commit()
    return "", 204


def post_create(username: str) -> tuple[dict[str, Any], int]:
    user = db.one_or_404(db.select(User).filter_by(username=username).with_for_update())
    last = db.session.scalar(
        db.select(func.coalesce(func.max(Post.number), 0)).filter_by(username=username)
    )
    user.posts.append(Post(number=last + 1, title=request.get_json()["title"]))
    db.session.commit()
    return show(user), 201


def post_list() -> dict[str, Any]:
    newest = db.select(Post).options(joinedload(Post.author)).order_by(Post.written.desc())
    posts = db.session.scalars(newest.limit(10))
    return {"posts": [f"{post.title}, by {post.author.email}" for post in posts]}


def show(user: User) -> dict[str, Any]:
    return {
        "id": str(user.id),
        "username": user.username,
        "shard": db.session().shard_of(user),
        "posts": [post.title for post in user.posts],
    }
