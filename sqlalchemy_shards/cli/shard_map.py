"""``shards map``: which shard holds which buckets, and where a key is. Reaches no server."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from sqlalchemy_shards.cli.failures import readable_failures
from sqlalchemy_shards.cli.keys import KeyType, parse_key
from sqlalchemy_shards.cli.output import bar, console, print_json
from sqlalchemy_shards.cluster.cluster import Cluster
from sqlalchemy_shards.errors import UnknownShard
from sqlalchemy_shards.topology.keyspace import shown_key

if TYPE_CHECKING:
    from rich.console import Console

    from sqlalchemy_shards.topology.shard_map import KeyspaceMap, ShardMap

_BAR_WIDTH: Final = 20
_RUNS_SHOWN_MAX: Final = 6


@readable_failures()
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_toml: Annotated[
        bool,
        typer.Option("--toml", help="Print the placement as the configuration file takes it."),
    ] = False,
) -> None:
    """Show the partitioner of each keyspace and the buckets of each shard."""
    cluster = Cluster.from_file(context.obj)
    if as_json:
        print_json(_as_dict(cluster))
        return
    if as_toml:
        typer.echo("\n".join(map(_as_toml, cluster.shard_map.keyspaces.values())))
        return
    out = console()
    out.print(
        f"Cluster [bold]{escape(cluster.name)}[/]: {len(cluster.shards)} shards, shard map version "
        f"{cluster.shard_map.version}, global tables on {escape(cluster.global_shard)}"
    )
    for keyspace in cluster.shard_map.keyspaces.values():
        _print_keyspace(keyspace, cluster.shard_map, out)


@readable_failures()
def lookup(
    context: typer.Context,
    keyspace: Annotated[str, typer.Argument(help="Name of the keyspace.", show_default=False)],
    key: Annotated[
        list[str],
        typer.Argument(
            help="The shard key, part by part; after -- if one begins with a minus sign.",
            show_default=False,
        ),
    ],
    type_: Annotated[
        list[KeyType] | None,
        typer.Option(
            "--type",
            help="Type of the key, or of each part, again and again; by default int if it looks "
            "like one, else str. It must be the type of the column.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell the bucket and the shard of a shard key."""
    parsed, types = parse_key(key, type_ or ())
    shard_map = Cluster.from_file(context.obj).shard_map
    shard = shard_map.shard_for(keyspace, parsed)
    found = shard_map.keyspaces[keyspace]
    bucket = _bucket(found, parsed)
    is_pinned = bucket is None or found.placement[bucket] != shard
    if as_json:
        label = None if bucket is None else found.partitioner.bucket_label(bucket)
        print_json(
            {
                "keyspace": keyspace,
                "key": list(key),
                "types": [each.value for each in types],
                "bucket": bucket,
                "bucket_label": label,
                "shard": shard,
                "is_pinned": is_pinned,
            }
        )
        return
    spoken_types = ", ".join(each.value for each in types)
    place = "no bucket" if bucket is None else f"bucket {found.partitioner.bucket_label(bucket)}"
    pinned = " (the key is pinned there)" if is_pinned else ""
    typer.echo(f"{', '.join(key)} ({spoken_types}): {place}, shard {shard}{pinned}")


def _bucket(keyspace: KeyspaceMap, key: tuple[Any, ...]) -> int | None:
    """The bucket of a key, None for one that is pinned without having any."""
    try:
        return keyspace.bucket_for(key)
    except UnknownShard:
        return None


def _print_keyspace(keyspace: KeyspaceMap, shard_map: ShardMap, out: Console) -> None:
    out.print(
        f"\nKeyspace [bold]{escape(keyspace.name)}[/]: {escape(keyspace.partitioner.describe())}"
    )
    counts, runs = Counter(keyspace.placement), _runs(keyspace)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column("shard", no_wrap=True)
    table.add_column("buckets", justify="right")
    table.add_column("share", no_wrap=True)
    table.add_column("which", overflow="fold")
    for shard in shard_map.shards:
        share = counts[shard] / len(keyspace.placement)
        drawn = f"[cyan]{bar(share, _BAR_WIDTH)}[/] {share:.0%}"
        table.add_row(escape(shard), str(counts[shard]), drawn, escape(_shown(runs.get(shard, []))))
    out.print(table)
    for key, shard in keyspace.pins.items():
        out.print(f"  the key {escape(shown_key(key))} is pinned to {escape(shard)}")


def _runs(keyspace: KeyspaceMap) -> dict[str, list[str]]:
    """The labels of the buckets of each shard, adjacent ones joined."""
    runs: dict[str, list[str]] = {}
    for label, shard in keyspace.ranges():
        runs.setdefault(shard, []).append(label)
    return runs


def _shown(runs: list[str]) -> str:
    more = len(runs) - _RUNS_SHOWN_MAX
    if more <= 1:
        return ", ".join(runs)
    return ", ".join(runs[:_RUNS_SHOWN_MAX]) + f" and {more} more"


def _as_toml(keyspace: KeyspaceMap) -> str:
    # Strings of JSON are strings of TOML.
    runs = ", ".join(
        f"{json.dumps(label)} = {json.dumps(shard)}" for label, shard in keyspace.ranges()
    )
    return f"# under [keyspaces.{keyspace.name}]\nplacement = {{ {runs} }}"


def _as_dict(cluster: Cluster) -> dict[str, Any]:
    shard_map = cluster.shard_map
    return {
        "cluster": cluster.name,
        "version": shard_map.version,
        "global_shard": cluster.global_shard,
        "shards": list(shard_map.shards),
        "keyspaces": {
            name: {
                "partitioner": keyspace.partitioner.describe(),
                "buckets": len(keyspace.placement),
                "placement": [
                    {"buckets": label, "shard": shard} for label, shard in keyspace.ranges()
                ],
                "pins": [
                    {"key": [str(part) for part in key], "shard": shard}
                    for key, shard in keyspace.pins.items()
                ],
            }
            for name, keyspace in shard_map.keyspaces.items()
        },
    }
