"""``shards demo``: every post office of India on four PostgreSQL shards, in front of your eyes.

It reads like the application that a newcomer would write: `models`, the data, loading them, some
queries and a transfer (`steps`). `checks` compares everything with the source file.
"""
