"""A wallet as a FastAPI application: `uvicorn examples.fastapi_app:app`, or `:async_app`."""

from .app import app
from .async_app import app as async_app

__all__ = ["app", "async_app"]
