"""A column is renamed while the application runs: expand, then contract, version by version."""
