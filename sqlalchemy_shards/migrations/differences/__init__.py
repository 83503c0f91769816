"""Drift: in what shards differ from one another, and from the models.

Takes a cluster and its models' tables; gives a `DriftReport`. Never changes anything, and never
lets a shard that is down or slow keep the others from being compared.

- `finding`: looks at all shards at once, then has them compared.
- `looking`: what is defined on one shard, kept once for all that have the same.
- `comparing`: the shards with each other. Pure.
- `with_models`: one of the shards that are alike with the models, by Alembic's autogenerate.
- `report`: what came of it.
"""
