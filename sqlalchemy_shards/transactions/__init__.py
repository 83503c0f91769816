"""Participants -> all or nothing: committing on several shards, and finishing what a crash left.

Takes the enlisted shards of a transaction; returns what was committed. Raises the driver's own
error where the transaction's work is at fault, `TransactionAborted` where the protocol could not be
carried out, and `TransactionOutcomeUnknown` where nobody can tell yet. Never raises for a
transaction that is committed, never guesses an outcome, and never commits on one shard what was not
decided on the decision shard.
"""
