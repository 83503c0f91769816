from __future__ import annotations

import psycopg
import pytest

from sqlalchemy_shards.errors import ConfigurationError, TransactionAborted
from sqlalchemy_shards.transactions.refusals import RoundError, report
from sqlalchemy_shards.transactions.statements import RolledBackError


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.UniqueViolation("duplicate key"),
        psycopg.errors.SerializationFailure("could not serialize"),
        psycopg.errors.RaiseException("from a deferred trigger"),
    ],
)
def test_a_fault_of_the_transactions_own_work_is_the_drivers_error(error: psycopg.Error) -> None:
    lost = psycopg.OperationalError("lost")

    reported = report(RoundError({"s0": lost, "s1": error}, deciding="s0"), [])

    assert reported is error
    assert reported.shard == "s1"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (psycopg.errors.ObjectNotInPrerequisiteState("disabled"), "max_prepared_transactions"),
        (psycopg.errors.OutOfMemory("maximum number"), "raise max_prepared_transactions"),
        (psycopg.errors.FeatureNotSupported("temporary objects"), "temporary objects"),
        (RolledBackError("PREPARE TRANSACTION was answered ROLLBACK"), "swallowed"),
        (psycopg.OperationalError("the connection is lost"), "connection is lost"),
    ],
)
def test_what_kept_the_protocol_from_being_carried_out_is_aborted(
    error: Exception, said: str
) -> None:
    reported = report(RoundError({"s1": error}, deciding="s0", gid="g"), [])

    assert isinstance(reported, TransactionAborted)
    assert said in str(reported)
    assert reported.shard == "s1"
    assert reported.gid == "g"
    assert reported.shard_errors == {"s1": error}


def test_a_row_of_recovery_in_the_decisions_is_no_constraint_of_the_application() -> None:
    error = psycopg.errors.UniqueViolation("duplicate key")

    reported = report(RoundError({"s0": error}, deciding="s0"), [])

    assert isinstance(reported, TransactionAborted)
    assert "recovery aborted" in str(reported)
    assert reported.is_retryable


def test_a_name_that_is_in_use_may_be_tried_again_under_another() -> None:
    error = psycopg.errors.DuplicateObject("transaction identifier is already in use")

    reported = report(RoundError({"s1": error}, deciding="s0"), [])

    assert isinstance(reported, TransactionAborted)
    assert "of the same name" in str(reported)
    assert reported.is_retryable


def test_a_lost_connection_may_be_tried_again_and_a_refusal_not() -> None:
    lost = report(RoundError({"s1": psycopg.OperationalError("lost")}), [])
    refused = report(RoundError({"s1": psycopg.errors.FeatureNotSupported("temporary")}), [])

    assert isinstance(lost, TransactionAborted)
    assert lost.is_retryable
    assert isinstance(refused, TransactionAborted)
    assert not refused.is_retryable


def test_a_wrong_configuration_is_reported_first() -> None:
    wrong = ConfigurationError("shard 's1' has no schema", "run cluster.bootstrap()")

    reported = report(RoundError({"s0": psycopg.OperationalError("x"), "s1": wrong}), [])

    assert reported is wrong


def test_shards_that_have_not_confirmed_the_rollback_are_named() -> None:
    reported = report(RoundError({"s1": psycopg.OperationalError("lost")}), ["s1", "s2"])

    assert "the shards 's1', 's2' have not confirmed" in str(reported)


def test_one_shard_that_has_not_confirmed_the_rollback_is_named() -> None:
    reported = report(RoundError({"s1": psycopg.OperationalError("lost")}), ["s1"])

    assert "the shard 's1' has not confirmed the rollback" in str(reported)
