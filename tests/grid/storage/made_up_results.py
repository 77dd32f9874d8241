"""Results with a made-up record, for tests that look at the store alone."""

from grid.storage.result_store import StageStore, write_record

RECORD = {
    "stage": "calibrate",
    "settings": {"calibrate.images": 4},
    "inputs": [["network", "ef01"]],
    "metrics": {"sqnr_db": 24.5},
    "asserted": {"observers": 3},
    "history": [],
    "seconds": 1.5,
}


def put(store: StageStore, node_id: str, content: bytes = b"weights") -> None:
    with store.writer(node_id) as folder:
        (folder / "network.pt").write_bytes(content)
        write_record(folder, RECORD)


def leftovers(store: StageStore) -> list[str]:
    return [path.name for path in (store.root / "stages").iterdir() if path.name.startswith(".tmp-")]
