"""Secrets of a tracking URI are shown nowhere: not in messages, files, logs, nor by the processes that are started."""

import socket
import threading

import pytest

import runner
from grid.secrets import masked
from grid.tracking.uri import checked_uri
from model.errors import InputError
from tests.grid.report.report_rows import row, text_of

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:hunter2@host:5000/path", "http://***@host:5000/path"),
        ("http://hunter2@host", "http://***@host"),
        ("postgresql://me:hun/ter2@host/db", "postgresql://***@host/db"),
        ("postgresql://me:h?un#t/e@r2@host/db?sslkey=hunter2&x=1", "postgresql://***@host/db?sslkey=***&x=***"),
        ("mysql+pymysql://me:hunter2@[::1]:3306/db", "mysql+pymysql://***@[::1]:3306/db"),
        ("sqlite:///file:/d/mlflow.db?password=hunter2&uri=true", "sqlite:///file:/d/mlflow.db?password=***&uri=***"),
        ("me:hunter2@host/db", "***@host/db"),
        ("error at 'http://me:hunter2@host/x': refused", "error at 'http://***@host/x': refused"),
    ],
)
def test_user_password_and_query_of_a_uri_are_masked_wherever_it_stands(uri, shown):
    assert masked(uri) == shown


@pytest.mark.parametrize("text", ["sqlite:////data/me@work/mlflow.db", "a: http://host/x and mail to me@host", "a=b"])
def test_what_is_no_secret_is_left_as_it_is(text):
    assert masked(text) == text


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("me:hunter2@host/db", "is a folder"),
        ("postgresql://me:hun ter2@host/hunter2", "holds a space"),
        ("http://me:hunter2/@host:5000", "names no host and port"),
        ("http://me:hunter2@host:port", "names no host and port"),
        ("http://me:hunter2@127.0.0.1:9", "no server answers"),
    ],
)
def test_a_uri_is_refused_without_its_secret(uri, message):
    with pytest.raises(InputError, match=message) as caught:
        checked_uri(uri)
    assert "hunter" not in str(caught.value)
    assert "ter2" not in str(caught.value)


def test_a_server_that_speaks_another_language_is_no_tracking_server():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            connection.sendall(b"220 mail.example ESMTP\r\n")
            connection.close()

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(InputError, match="no server answers") as caught:
            checked_uri(f"http://me:{SECRET}@127.0.0.1:{server.getsockname()[1]}")
    assert SECRET not in str(caught.value)


def test_a_report_masks_the_facts_and_commands_that_it_is_given():
    uri = f"postgresql://me:{SECRET}@host/db?sslkey={SECRET}"
    facts = {"run": "a", "origin": uri, "test_images": 4, "command": f"python runner.py {uri}"}
    text = text_of([row("a")], facts, commands={"a": f"python runner.py --tracking-uri '{uri}'"})
    assert text.count("@host/db") == 4
    assert SECRET not in text


def test_an_error_that_nobody_expected_keeps_its_traceback_without_the_secret(monkeypatch, capsys):
    def fail(asked):
        raise RuntimeError(f"API request to http://me:{SECRET}@127.0.0.1:1/api failed")

    monkeypatch.setattr(runner, "run", fail)
    assert runner.main(["--dry-run"]) == 1
    shown = capsys.readouterr().err
    assert SECRET not in shown
    assert "RuntimeError: API request to http://***@127.0.0.1:1/api failed" in shown
    assert "Traceback" in shown
