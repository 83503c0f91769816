"""Flask-SQLAlchemy's quickstart on a cluster: `flask --app examples.flask_app run`."""

from .app import create_app

__all__ = ["create_app"]
