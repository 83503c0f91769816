"""``python -m sqlalchemy_shards`` is the command ``shards``."""

from sqlalchemy_shards.cli import main

if __name__ == "__main__":
    main()
