"""What is wrong with declarations, one sentence per fault, each ending in how to mend it.

Takes tables, mappers and what they are declared as; yields sentences. Raises nothing, connects to
nothing, changes nothing. What is not known yet (a table that is still undeclared, a foreign key
whose target is not defined) is no fault.

- `setting`: the dialect, and what an undeclared table counts as.
- `keys`, `unfit_types`: the columns of a shard key, and their types.
- `server_values`: values that each server would make for itself.
- `uniqueness`: primary keys, identities, unique and exclusion constraints.
- `co_location`: whether the row that another row names lies beside it.
- `foreign_keys`, `relationships`: what rests on that.
"""
