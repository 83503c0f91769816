"""What happens when Alembic runs an ``env.py`` that calls `run_migrations`.

- `call`: `run_migrations`, which tells by Alembic's command how the shards take part; `invocation`
  is what it was given, `selection` what ``-x`` says to us.
- Commands that change no shard: `comparing` (with the models), `telling`, `offline` (``--sql``).
- `counting`: a target that is relative to where a shard is.
- `naming`: which shard is meant, for whoever reads logs and errors.
- `asking`: running an ``env.py`` to learn what it says. `template`: what one begins with.
"""
