"""Real PostgreSQL shards for tests and for trying things out.

`servers` runs throwaway PostgreSQL servers on this machine, `docker` in containers; `shards` picks
one of them, or the servers that `SHARDS_TEST_URLS` names; `plugin` makes pytest fixtures of it.
Nothing here touches a database that it did not create, and nothing that it starts outlives the
run: what a killed run left behind is removed by the next one.
"""
