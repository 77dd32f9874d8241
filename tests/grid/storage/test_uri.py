"""A URI has one folder on every machine, and shows no secret."""

from pathlib import Path

import pytest

from grid.storage.uri import identity, is_uri, local_root, masked_uri, without_secrets

SECRETS = [
    "s3://AKID:hush@bucket/prefix",
    "s3://AKID:hu/sh@bucket/prefix",
    "s3://AKID:hu%2Fsh@bucket/prefix/",
    "s3://bucket/prefix?session_token=hush",
    "s3://bucket/prefix/?secret_key=hush&access_key=AKID",
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("QUANTIZATION_GRID_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("uri", SECRETS)
def test_a_uri_is_shown_and_kept_without_its_secrets(uri, cache):
    for text in (masked_uri(uri), str(local_root(uri)), identity(uri), without_secrets(f"cannot parse '{uri}'", uri)):
        assert not any(secret in text for secret in ("AKID", "hush", "hu/sh", "hu%2Fsh", "hu-sh"))
    assert "bucket" in masked_uri(uri)
    assert local_root(uri) == local_root("s3://bucket/prefix")  # other credentials, same storage
    assert local_root(uri).parent == cache
    assert local_root(uri).name.startswith("s3-bucket-prefix-")


@pytest.mark.parametrize(
    "other",
    [
        "s3://bucket/prefix2",
        "gs://bucket/prefix",
        "s3://bucket-prefix",
        "s3://bucket/prefix?endpoint_override=127.0.0.1:9000",
        "s3://bucket/prefix/x@y",
        "s3://other/prefix",
    ],
)
def test_another_storage_has_another_folder(other):
    assert local_root(other) != local_root("s3://bucket/prefix")


def test_containers_of_azure_are_told_apart_but_not_their_keys():
    first, second = (local_root(f"abfs://{one}@account.dfs.core.windows.net/x") for one in "ab")
    assert first != second
    assert local_root("abfs://:key@account/container/x") == local_root("abfs://:other@account/container/x")


def test_a_path_is_its_own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert local_root("results") == tmp_path / "results"
    assert not is_uri("results")
    assert not is_uri("/a:b//c")
    assert is_uri("s3://bucket")


def test_without_the_variable_the_folder_is_below_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("QUANTIZATION_GRID_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_root("s3://bucket/x").parent == tmp_path / ".cache" / "quantization-grid"


@pytest.mark.parametrize("uri", ["s3://../../x", "s3://bucket/../../../etc", "file:///../.."])
def test_no_uri_leads_out_of_the_cache(uri, cache):
    assert local_root(uri).parent == cache
    assert local_root(uri).resolve().parent == cache.resolve()
