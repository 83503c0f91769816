"""Statement + sources -> plan: how several shards answer as one would.

`PASSES` in `planner` is the whole of it: each pass looks at one clause and either says nothing,
contributes to the plan, or raises `Refusal`: shards alone cannot answer. Then `gathering` plans
what they ship to the workspace, or raises `Refusal` for good. Pure: no connection, no clock;
what only the catalogs know (collations, types, functions) is asked through what the caller passes.
"""
