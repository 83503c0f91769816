"""How ``sphinx-build --fail-on-warning docs <target>`` builds the documentation, offline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pygments.lexers.sql import PostgresLexer

from sqlalchemy_shards import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "sqlalchemy_shards"
author = "The sqlalchemy_shards developers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["changes"]
myst_heading_anchors = 3

default_role = "py:obj"  # what stands in single backticks in a docstring
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
autoclass_content = "class"
python_use_unqualified_type_names = True
add_module_names = False

# Sphinx shows what is logged, and Alembic logs its plug-ins while they are imported.
logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)

html_theme = "furo"
html_title = "sqlalchemy_shards"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["wide.css"]


def setup(app: Sphinx) -> None:
    """Read every SQL sample as PostgreSQL's."""
    app.add_lexer("sql", PostgresLexer)
