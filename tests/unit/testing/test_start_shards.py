"""Where the servers of a test run come from."""

from __future__ import annotations

import socket

import psycopg
import pytest
from sqlalchemy.engine import make_url

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.testing.docker import is_docker_available
from sqlalchemy_shards.testing.shards import Backend, chosen_backend, start_shards


@pytest.fixture(autouse=True)
def no_choice(monkeypatch, tmp_path):
    """No variable chooses, and no Docker engine answers."""
    monkeypatch.delenv("SHARDS_TEST_URLS", raising=False)
    monkeypatch.delenv("SHARDS_TEST_BACKEND", raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")


def test_servers_of_this_machine_are_started(temporary_root, backend, monkeypatch):
    monkeypatch.setenv("SHARDS_TEST_BACKEND", backend)

    with start_shards(2) as urls:
        directories = set()
        for url in urls:
            libpq_url = make_url(url).set(drivername="postgresql")
            with psycopg.connect(libpq_url.render_as_string(hide_password=False)) as connection:
                directories |= set(connection.execute("SHOW data_directory").fetchone())

    assert len(directories) == 2
    assert list(temporary_root.glob("pg-shards-*")) == []


def test_without_anything_said_this_machine_is_left_to_choose():
    assert chosen_backend() is Backend.AUTO


def test_urls_come_before_everything_else(monkeypatch):
    monkeypatch.setenv(
        "SHARDS_TEST_URLS", "postgresql://a/x, postgresql+psycopg://b/y,postgres://c"
    )

    with start_shards(3) as urls:
        assert urls == [
            "postgresql+psycopg://a/x",
            "postgresql+psycopg://b/y",
            "postgresql+psycopg://c",
        ]


def test_passwords_in_urls_are_kept(monkeypatch):
    monkeypatch.setenv("SHARDS_TEST_URLS", "postgresql://me:secret@a/x")

    with start_shards(1) as urls:
        assert urls == ["postgresql+psycopg://me:secret@a/x"]


def test_a_backend_that_is_named_comes_before_urls(monkeypatch):
    monkeypatch.setenv("SHARDS_TEST_URLS", "postgresql://a/x")
    monkeypatch.setenv("SHARDS_TEST_BACKEND", "embedded")

    assert chosen_backend() is Backend.EMBEDDED


def test_too_few_urls_are_an_error_that_counts_them(monkeypatch):
    monkeypatch.setenv("SHARDS_TEST_URLS", "postgresql://me:secret@a/x,")

    with pytest.raises(ConfigurationError, match="names 1 databases, but 4 are needed") as caught:
        start_shards(4).__enter__()

    assert "secret" not in str(caught.value)


def test_urls_that_were_asked_for_but_not_given_are_an_error(monkeypatch):
    monkeypatch.setenv("SHARDS_TEST_BACKEND", "urls")

    with pytest.raises(ConfigurationError, match="names 0 databases"):
        start_shards(4).__enter__()


def test_a_bad_url_is_an_error_that_does_not_show_its_password(monkeypatch):
    monkeypatch.setenv("SHARDS_TEST_URLS", "postgresql://a/x,me:secret@b")

    with pytest.raises(ConfigurationError, match="URL number 2 in SHARDS_TEST_URLS") as caught:
        start_shards(2).__enter__()

    assert "secret" not in str(caught.value)


def test_an_unknown_backend_is_an_error_that_names_the_known_ones(monkeypatch):
    monkeypatch.setenv("SHARDS_TEST_BACKEND", "podman")

    with pytest.raises(ConfigurationError, match="auto, urls, docker, system, embedded"):
        start_shards().__enter__()


@pytest.mark.parametrize(
    "host", ["tcp://127.0.0.1:1", "npipe:////./pipe/docker", "unix:///nowhere"]
)
def test_docker_is_not_available_where_no_engine_answers(monkeypatch, host):
    monkeypatch.setenv("DOCKER_HOST", host)

    assert not is_docker_available()


def test_an_engine_that_answers_is_used_only_with_testcontainers(monkeypatch, temporary_root):
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(temporary_root / "docker.sock"))
        engine.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{temporary_root}/docker.sock")
        monkeypatch.setattr("sys.path", [])
        without = is_docker_available()
        (temporary_root / "testcontainers.py").touch()
        monkeypatch.setattr("sys.path", [str(temporary_root)])

        assert (without, is_docker_available()) == (False, True)
