"""Statement + sources -> plan: how several shards answer as one would.

`PASSES` in `planner` is the whole of it: each pass looks at one clause and either says nothing,
contributes to the plan, or refuses with the reason. Raises `UnsupportedStatement`. Pure: no
connection, no clock; what only the catalog knows (collations) is asked through `Facts`.
"""
