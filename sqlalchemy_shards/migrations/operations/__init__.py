"""Operations of revisions that Alembic does not have.

Takes Alembic's migration context of one shard; runs what a revision says there. What is run outside
of a transaction can be run again after any failure. Each operation says in one sentence why it
cannot be written as SQL, where it cannot.

- `placing`: whether this is the global shard; the schema `shards`.
- `indexes`: building and dropping indexes while others write; `index_states` looks at them.
- `constraints`: validating a constraint that was added without looking at the rows.
- `batches`: changing the rows of a table in many small transactions; `batch_progress`: how far.
- `outside`: leaving the migration's transaction.
"""
