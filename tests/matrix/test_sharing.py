"""One suite of forty cells gives the same records however it is spread, and each cell is measured once."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import traceback
from pathlib import Path

import pytest

from attnbench.backends.encoders import prepared
from attnbench.cli.main import main
from attnbench.matrix.sharing import leases, shards
from attnbench.records import record

AMOUNTS = [*range(5, 95, 5)]  # with dense and uniform 20 cells a model
DATA = "text,label\na good film,positive\nit was bad and long,negative\nfine,positive\n"


@pytest.fixture(scope="module")
def forty(tiny_folder, tmp_path_factory):
    """Write a suite of forty cells; return the command that runs it, but for the folder of records."""
    folder = tmp_path_factory.mktemp("forty")
    (folder / "mine.csv").write_text(DATA, encoding="utf-8")
    methods = json.dumps([f"prune{amount}" for amount in AMOUNTS])
    suite = folder / "forty.toml"
    suite.write_text(
        f'models = ["a", "b"]\ntasks = ["{folder}/mine.csv"]\nmethods = {methods}\n', encoding="utf-8"
    )
    return ["run", str(suite), "--models", f"a={tiny_folder}", f"b={tiny_folder}", "--records"]


@pytest.fixture(scope="module")
def alone(forty, tmp_path_factory):
    """What one run records."""
    folder = tmp_path_factory.mktemp("alone") / "r"
    assert main([*forty, str(folder)]) == 0
    found = _comparable(folder)
    assert len(found) == 40
    return found


def _comparable(folder):
    """Return the records of a folder by cell, without time, machine and command."""
    found = {}
    for item in record.read_all(folder):
        body = item.body()
        del body["seconds"], body["environment"], body["date"], body["provenance"]["command"]
        del body["provenance"]["arrays"]  # their hash; the archive's bytes hold a date, what is in it follows
        body["scores"] = {name: scores.tolist() for name, scores in item.scores.items()}
        found[tuple(item.cell.values())] = body
    return found


def _children(number, act):
    """Fork processes that act, and return their exit statuses."""
    children = []
    for _ in range(number):
        child = os.fork()
        if child == 0:
            try:
                os._exit(act())
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)  # a child must never come back into pytest
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_four_processes_on_one_folder_measure_each_cell_once(forty, alone, tmp_path, monkeypatch):
    log, original = tmp_path / "log", prepared.Prepared.evaluate

    def counted(self, *arguments, **options):
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        return original(self, *arguments, **options)

    monkeypatch.setattr(prepared.Prepared, "evaluate", counted)
    monkeypatch.setattr(leases, "PAUSE", 0.02)
    assert _children(4, lambda: main([*forty, str(tmp_path / "r")])) == [0, 0, 0, 0]
    assert len(log.read_text(encoding="utf-8").splitlines()) == 40
    assert _comparable(tmp_path / "r") == alone and not list((tmp_path / "r").rglob(".*"))


def test_shards_of_two_folders_are_merged_one_of_them_an_arrays(forty, alone, tmp_path, monkeypatch, capsys):
    one, two, both = (str(tmp_path / name) for name in ("one", "two", "both"))
    assert main([*forty, one, "--shard", "1/2"]) == 0
    for name, value in zip(shards.SLURM, ("8", "7", "8", "2"), strict=True):
        monkeypatch.setenv(name, value)
    assert main([*forty, two, "--shard", "slurm"]) == 0
    assert sorted(len(_comparable(folder)) for folder in (one, two)) == [20, 20]
    capsys.readouterr()
    assert main(["merge", one, two, "--into", both]) == 0
    assert capsys.readouterr().out == f"{both}: 40 written, 0 there already\n"
    assert _comparable(both) == alone
    assert main([*forty, one, "--shard", "1/3"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"--records {one} is being filled by 2 shards of forty.toml, 2 columns" in told


def test_workers_record_what_one_run_does(forty, alone, tmp_path):
    assert main([*forty, str(tmp_path / "r"), "--workers", "2"]) == 0
    assert _comparable(tmp_path / "r") == alone
    assert not list((tmp_path / "r").rglob(".*"))


@pytest.fixture(scope="module")
def cluster():
    """Start two nodes of Ray on this machine, and a server for clients from outside."""
    ray = pytest.importorskip("ray")
    from ray import cluster_utils

    with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
        free.bind(("", 0))
        port = free.getsockname()[1]
        free.close()
        patch.setenv("RAY_worker_niceness", "0")  # else tasks wait for whatever else this machine does
        head = {"num_cpus": 0, "include_dashboard": False, "ray_client_server_port": port}
        found = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        found.outside = f"ray://{found.address.rpartition(':')[0]}:{port}"
        for _ in range(2):
            found.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", found.address)
        yield found
        ray.shutdown()
        found.shutdown()


def test_ray_records_what_one_run_does(forty, alone, cluster, tmp_path, monkeypatch):
    import ray

    tasks, remote = [], ray.remote_function.RemoteFunction._remote

    def counted(self, *arguments, **options):
        tasks.append(self)
        return remote(self, *arguments, **options)

    monkeypatch.setattr(ray.remote_function.RemoteFunction, "_remote", counted)
    assert main([*forty, str(tmp_path / "r"), "--on", "ray"]) == 0
    assert len(tasks) == 2  # a column each
    assert _comparable(tmp_path / "r") == alone
    assert not list((tmp_path / "r").rglob(".*"))


def test_a_client_of_ray_records_what_one_run_does(forty, alone, cluster, tiny_folder, tmp_path):
    data = str(Path(forty[1]).with_name("mine.csv"))
    asked = ["run", "--models", f"a={tiny_folder}", "--tasks", data, "--methods", "prune50"]
    assert main([*asked, "--records", str(tmp_path / "r"), "--on", cluster.outside]) == 0
    found = _comparable(tmp_path / "r")
    assert found == {cell: alone[cell] for cell in found} and len(found) == 3


WAITS = """
import os, time
from attnbench import Method, hookimpl

class Waits(Method):
    name = "waits"
    examples = ("waits",)

    def probs(self, probs, site):
        if not os.path.exists(MARK):
            with open(MARK + ".part", "w") as file:
                file.write(os.environ["RAY_RAYLET_PID"] + " " + str(os.getpid()))
            os.replace(MARK + ".part", MARK)
            time.sleep(600)
        return probs * 0.5

@hookimpl
def register_methods(register):
    register(Waits)
"""


@pytest.fixture
def waiting(forty, tiny_folder, tmp_path, fresh_registry):
    """Return a run that waits in a cell, and what has a thread act then, told the raylet and the process."""
    mark, plugin = tmp_path / "mark", tmp_path / "waits.py"
    plugin.write_text(f"MARK = {str(mark)!r}\n{WAITS}", encoding="utf-8")
    data = Path(forty[1]).with_name("mine.csv")
    asked = ["run", "--models", tiny_folder, "--tasks", str(data), "--methods", "waits,prune50"]
    asked += ["--plugin", str(plugin), "--records", str(tmp_path / "r"), "--on", "ray"]

    def then(act):
        def wait():
            while not mark.exists():
                time.sleep(0.1)
            act(*map(int, mark.read_text(encoding="utf-8").split()))

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread

    return asked, then


def _statuses(folder):
    return {method: item["status"] for (_, _, method), item in _comparable(folder).items()}


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C be heard, which a shell's background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_tasks_of_ray_and_keeps_what_came_back(waiting, cluster, ctrl_c, tmp_path, capsys):
    asked, then = waiting
    at = []

    def stop(raylet, process):
        at.append(process)
        os.kill(os.getpid(), signal.SIGINT)

    then(stop)
    assert main(asked) == 128 + signal.SIGINT
    told = "attnbench: stopped; what is recorded stays, the same command goes on from there"
    assert capsys.readouterr().err.splitlines()[-1] == told
    assert _statuses(tmp_path / "r") == dict.fromkeys(("dense", "uniform"), "measured")
    assert not list((tmp_path / "r").rglob(".*"))
    for _ in range(600):
        if not Path(f"/proc/{at[0]}").exists():
            return
        time.sleep(0.1)
    pytest.fail("the cell is still being measured")


def test_a_node_that_is_lost_loses_nothing(waiting, cluster, tmp_path, capsys):
    def lose(raylet, process):
        nodes = {each.all_processes["raylet"][0].process.pid: each for each in cluster.worker_nodes}
        cluster.remove_node(nodes[raylet])

    asked, then = waiting
    losing = then(lose)
    assert main(asked) == 0
    losing.join(timeout=60)
    assert _statuses(tmp_path / "r") == dict.fromkeys(("dense", "uniform", "waits", "prune50"), "measured")
    err = capsys.readouterr().err
    assert err.count(" · dense: ") == 1  # what came back before counts
    assert f": its task on {socket.gethostname()} (node " in err and "was lost: " in err
