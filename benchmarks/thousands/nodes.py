"""Two thousand cells on a head and five Ray nodes of this machine whose stages sleep, with one node lost in the middle.

Each node says that it has two cores, and has a folder of its own; they share a storage behind a URI (here a folder), as
machines of a cluster do. A stage sleeps and leaves what others read. Measurements run as all other stages do: actors of
their own would double the processes on this machine. One cell in a hundred fails
for good, one evaluation in 400 once; at two fifths of the stages a node is killed, and another one joins. Which rows
are to fail is known, and checked. The wall time runs from the start of the first stage to the end of the last one, and
to the closed MLflow run without the report; it is divided by the sleeping work over the workers, where a node counts
from its start to its end. What a stage costs beside its sleep, driver, workers and all of Ray share the real cores: the
figure is about the scheduler as long as these cores are not full, which the load says.
"""

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.line import say
from benchmarks.thousands.grid import Setup, grid
from benchmarks.thousands.stages import SLEEP_S, fails
from grid.storage.uri import CACHE
from tests.faults.cluster import PARTS, Cluster

CELLS, SLEEP, NODES, CORES = 2000, 1.0, 5, 2
LOST_AT, LOOK_EVERY_S, STAGES_A_CELL = 0.4, 5.0, 4
ROOT = Path(__file__).parents[2]


def main(cells: int = CELLS, seconds: float = SLEEP) -> None:
    os.environ |= {SLEEP_S: str(seconds), "PYTHONPATH": str(ROOT)}
    PARTS["node"] = [f"--num-cpus={CORES}"]
    with tempfile.TemporaryDirectory(prefix="thousands-") as name:
        cluster, folder = Nodes(Path(name)), Path(name)
        try:
            for part in ("head", *(f"node-{number}" for number in range(1, NODES + 1))):
                cluster.add(part)
            watch, figures = watched(cluster, folder, cells)
        finally:
            cluster.stop()
    report(cells, seconds, watch, figures)


class Nodes(Cluster):
    """Nodes that are given up after half a minute without an answer: all of them share two cores, and start at once."""

    def environment(self, name: str) -> dict[str, str]:
        patience = {"RAY_health_check_period_ms": "5000", "RAY_health_check_timeout_ms": "15000"}
        return {**super().environment(name), **patience}


def watched(cluster: Cluster, folder: Path, cells: int) -> tuple["Watch", dict[str, Any]]:
    """Run the grid in a process of its own, lose a node and add one while it runs; what was seen of it."""
    watch = Watch(cluster, time.monotonic())
    os.environ |= cluster.environment("driver")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        running = pool.submit(driver, folder, cluster.address, cells)
        looking = threading.Thread(target=watch.look, args=(running.done,))
        looking.start()
        while not running.done() and done(folder) < LOST_AT * STAGES_A_CELL * cells:
            print(f"{time.monotonic() - watch.began:.0f} s: {done(folder)} stages", file=sys.stderr)
            time.sleep(LOOK_EVERY_S)
        if not running.done():
            print("a node is lost, another one joins", file=sys.stderr)
            watch.lost_at = time.monotonic()
            cluster.lose("node-3")
            cluster.add(f"node-{NODES + 1}")
            watch.joined_at = time.monotonic()
        while not running.done():
            print(f"{time.monotonic() - watch.began:.0f} s: {done(folder)} stages", file=sys.stderr)
            time.sleep(LOOK_EVERY_S)
        figures = running.result()
        looking.join()
    return watch, figures


def driver(folder: Path, address: str, cells: int) -> dict[str, Any]:
    """The run itself, in a fresh process that is a machine like the others."""
    storage = (folder / "storage").as_uri()

    def said(count: int) -> None:
        (folder / "done").write_text(str(count))

    return grid(folder, cells, Setup("benchmarks.thousands.stages:sleeping", address, storage, fails, said))


def done(folder: Path) -> int:
    """How many stages have finished."""
    file = folder / "done"
    return int(file.read_text() or 0) if file.is_file() else 0


class Watch:
    """Memory and processes of all nodes while the grid runs, and when a node was lost and another joined."""

    def __init__(self, cluster: Cluster, began: float) -> None:
        self.mark = f"{CACHE}={cluster.folder}/".encode()
        self.began, self.lost_at, self.joined_at = began, float("inf"), float("inf")
        self.seen: list[tuple[float, Counter[str], Counter[str]]] = []

    def look(self, is_over: Callable[[], bool]) -> None:
        """Look every few seconds until the run is over."""
        while not is_over():
            self.seen.append((time.monotonic(), *processes(self.mark)))
            time.sleep(LOOK_EVERY_S)

    def capacity(self, start: float, end: float) -> float:
        """Worker seconds from ``start`` to ``end``."""
        lost = max(min(self.joined_at, end) - max(self.lost_at, start), 0.0)
        return CORES * (NODES * (end - start) - lost)

    def most(self, kind: str, start: float, end: float) -> float:
        """The most private memory, MB, of all processes of a kind together."""
        return max((memory[kind] for at, memory, _ in self.seen if start <= at <= end), default=0.0)

    def workers(self, start: float, end: float) -> int:
        """The most workers of Ray at a time."""
        return max((counts["workers"] for at, _, counts in self.seen if start <= at <= end), default=0)


def processes(mark: bytes) -> tuple[Counter[str], Counter[str]]:
    """Private memory in MB, and number, of the processes that have ``mark`` in their environment, by kind."""
    memory, counts = Counter[str](), Counter[str]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark not in (folder / "environ").read_bytes():
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            kind = kind_of(command)
            memory[kind] += float(status["RssAnon"].split()[0]) / 1e3
            memory["object stores"] += float(status["RssShmem"].split()[0]) / 1e3 if kind == "raylets" else 0.0
            counts[kind] += 1
        except (OSError, KeyError, ValueError):  # it has ended meanwhile
            continue
    return memory, counts


def kind_of(command: str) -> str:
    """What a process of a node is, by its command line."""
    program = command.split(" ")[0]
    if program.startswith("ray::") and not program.endswith("Agent"):
        return "workers"
    for name, kind in (("gcs_server", "GCS"), ("raylet", "raylets")):
        if program.endswith(f"/{name}"):
            return kind
    return "others"


def report(cells: int, seconds: float, watch: Watch, figures: dict[str, Any]) -> None:
    """Print all figures."""
    first, last, end = (figures[name] for name in ("first", "last", "end"))
    of = f"{cells} cells, {figures['stages']} stages of {seconds:g} s, {NODES} nodes of {CORES} workers"
    work, closed = figures["slept_s"], end - figures["report_s"]
    ideal = work / watch.capacity(first, last) * (last - first)
    say("thousands_nodes_ideal_s", ideal, "s", f"{of}: {work:.0f} s of sleep over the workers that there were")
    for name, until in (("stages", last), ("mlflow", closed)):
        say(f"thousands_nodes_wall_s_{name}", until - first, "s", f"to the end of {name}")
        say(f"thousands_nodes_wall_ratio_{name}", (until - first) / ideal, "x", "wall / ideal; goal <= 1.15")
    for name, count in sorted(figures["machines"].items()):
        say(f"thousands_nodes_stages_{name or 'others'}", count, "stages", f"of {figures['stages']}")
    say("thousands_nodes_failed", figures["failed"], "cells", "as many as were to fail, each with its reason")
    say("thousands_nodes_report_s", figures["report_s"], "s", "rows, results.csv, pages and pictures at the end")
    for when in ("start", "end", "report"):
        private, resident = figures[f"{when}_private_mb"], figures[f"{when}_resident_mb"]
        say(f"thousands_nodes_driver_{when}_mb", private, "MB", f"private pages; {resident:.0f} resident; goal < 1500")
    middle = (first + last) / 2
    for kind in ("workers", "raylets", "object stores", "GCS", "others"):
        early, late = watch.most(kind, first, middle), watch.most(kind, middle, last)
        say(f"thousands_nodes_{kind.replace(' ', '_')}_mb", late, "MB", f"all nodes; {early:.0f} in the first half")
    late = watch.workers(middle, last)
    say("thousands_nodes_worker_processes", late, "", f"at a time; {watch.workers(first, middle)} in the first half")
    say(
        "thousands_nodes_actors",
        figures["actors"],
        "",
        f"of Ray that were ever started, for {figures['stages']} stages",
    )
    say("thousands_nodes_load", os.getloadavg()[2], "", f"over the last 15 minutes, on {os.cpu_count()} real cores")


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((int, float), sys.argv[1:], strict=False)))
