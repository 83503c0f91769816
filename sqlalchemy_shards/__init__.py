"""Many PostgreSQL shards behind one ordinary SQLAlchemy engine."""

from sqlalchemy_shards.cluster.async_cluster import AsyncCluster, create_async_cluster
from sqlalchemy_shards.cluster.cluster import Cluster, create_cluster
from sqlalchemy_shards.cluster.copying.csv_format import CsvFormat
from sqlalchemy_shards.cluster.explain.explanation import Explanation
from sqlalchemy_shards.cluster.limits import GatherLimit
from sqlalchemy_shards.cluster.readiness.report import Report
from sqlalchemy_shards.cluster.recovery.async_worker import AsyncRecoveryWorker
from sqlalchemy_shards.cluster.recovery.worker import RecoveryWorker
from sqlalchemy_shards.cluster.timeouts import Timeouts
from sqlalchemy_shards.models.declare import (
    GlobalMixin,
    ReferenceMixin,
    ShardKeyMixin,
    global_table,
    reference_table,
    shard_table,
)
from sqlalchemy_shards.models.generated_id import GeneratedId
from sqlalchemy_shards.models.id_generator import IdGenerator
from sqlalchemy_shards.models.worker_lease import WorkerLease
from sqlalchemy_shards.session.async_session import AsyncShardedSession
from sqlalchemy_shards.session.query import ShardedQuery
from sqlalchemy_shards.session.retrying import run_async_transaction, run_transaction
from sqlalchemy_shards.session.session import ShardedSession
from sqlalchemy_shards.topology.keyspace import Keyspace
from sqlalchemy_shards.topology.partitioners import (
    CompositePartitioner,
    HashPartitioner,
    ListPartitioner,
    Partitioner,
    RangePartitioner,
)
from sqlalchemy_shards.topology.shard_map import ShardMap
from sqlalchemy_shards.transactions.reports import (
    InDoubtTransaction,
    RecoveryReport,
    TransactionGauges,
)

__version__ = "0.1.0.dev0"

__all__ = [
    "AsyncCluster",
    "AsyncRecoveryWorker",
    "AsyncShardedSession",
    "Cluster",
    "CompositePartitioner",
    "CsvFormat",
    "Explanation",
    "GatherLimit",
    "GeneratedId",
    "GlobalMixin",
    "HashPartitioner",
    "IdGenerator",
    "InDoubtTransaction",
    "Keyspace",
    "ListPartitioner",
    "Partitioner",
    "RangePartitioner",
    "RecoveryReport",
    "RecoveryWorker",
    "ReferenceMixin",
    "Report",
    "ShardKeyMixin",
    "ShardMap",
    "ShardedQuery",
    "ShardedSession",
    "Timeouts",
    "TransactionGauges",
    "WorkerLease",
    "create_async_cluster",
    "create_cluster",
    "global_table",
    "reference_table",
    "run_async_transaction",
    "run_transaction",
    "shard_table",
]
