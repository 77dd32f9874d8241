"""Storages by URI: a folder that counts as one, and a server that speaks S3."""

import pytest

from grid.storage import object_store as objects
from grid.storage.remote import Remote
from grid.storage.result_store import StageStore
from tests.grid.storage.s3_server import s3_server, s3_uri

KINDS = ("file", "s3")


@pytest.fixture(scope="module")
def credentials():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "of-a-test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="module")
def server(credentials):
    with s3_server() as (port, _):
        yield port


@pytest.fixture(params=KINDS)
def uri(request, tmp_path) -> str:
    """An empty storage of either kind."""
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    found = s3_uri(request.getfixturevalue("server"), f"bucket/{tmp_path.name}")
    Remote(found, tmp_path).check()
    return found


@pytest.fixture
def machine(uri, tmp_path):
    """Makes the store of a machine by its name: a folder of its own, and the URI."""
    return lambda name: StageStore(tmp_path / name, Remote(uri, tmp_path / name))


@pytest.fixture
def one_try(monkeypatch):
    monkeypatch.setattr(objects, "DELAYS_S", ())
