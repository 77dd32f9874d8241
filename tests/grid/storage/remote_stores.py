"""Small results for the tests of storages by URI."""

from grid.storage.result_store import StageStore, write_record
from tests.grid.storage.made_up_results import RECORD


def put(store: StageStore, node_id: str, content: bytes = b"weights") -> None:
    with store.writer(node_id) as folder:
        (folder / "figures").mkdir()
        (folder / "figures" / "a.bin").write_bytes(b"abc")
        (folder / "network.pt").write_bytes(content)
        write_record(folder, RECORD)


def content(store: StageStore) -> bytes:
    return (store.path("ab12") / "network.pt").read_bytes()
