"""A wallet as a FastAPI application: `fastapi run` or `uvicorn examples.fastapi_app:app`."""

from .app import app

__all__ = ["app"]
