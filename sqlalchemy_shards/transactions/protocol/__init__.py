"""The protocol of an atomic commit, pure: what was heard goes in, what is to be done comes out.

`coordinator` commits one transaction, `settling` finds out what became of one, `recovering`
finishes what a crash left prepared, `cleaning` removes rows of `shards.decisions`. They take values
and return values; `rounds`, `settle`, `finishing`, `inventory` and `recovery` beside this package
do what they say and tell them what the servers answered, in any colour, sync or async.

Invariants, which `tests/model` checks in every order of events up to stated bounds:

1. A transaction with two or more participants is committed if, and only if, its decision row is
   committed on the decision shard. The row is inserted by the decision shard's own part of the
   transaction, so the two cannot come apart, and it is on disk before anybody can read it.
2. The decision shard's transaction has an xid, and every part's name carries it, before the first
   PREPARE is sent; so whoever finds a part can tell whether the transaction may still be decided.
3. The deciding COMMIT is sent only after every other participant has answered PREPARE TRANSACTION
   with that very tag; so from then on every part can be committed.
4. COMMIT PREPARED is sent only by one who knows that the decision row was committed. ROLLBACK
   PREPARED is sent only by one who knows that it never will be: the coordinator, as long as it has
   not sent that COMMIT, and whoever `settling` has told so.
5. A commit row is removed only when no participant can hold a part of it any more; an abort row
   only when the transaction that it forestalls is over.
6. Whoever is not told what happened asks through `settling`, and nobody guesses. What a server says
   counts only if it is the verified primary of the shard that was meant.
"""
