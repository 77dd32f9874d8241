"""The files of cluster/ are what Ray's launcher and KubeRay read, and agree with each other and the requirements."""

import importlib.util
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.grid.tiny import ROOT

CLUSTER = ROOT / "cluster"
LAUNCHER = yaml.safe_load((CLUSTER / "ray-cluster.yaml").read_text())
JOB = yaml.safe_load((CLUSTER / "kuberay.yaml").read_text())
HEAD = JOB["spec"]["rayClusterSpec"]["headGroupSpec"]
GROUPS = {group["groupName"]: group for group in JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]}


def test_the_launchers_file_keeps_rays_schema():
    found = importlib.util.find_spec("ray")
    schema = Path(found.origin).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(LAUNCHER, json.loads(schema.read_text()))
    assert LAUNCHER["head_node_type"] in LAUNCHER["available_node_types"]


def test_one_type_of_nodes_measures_and_the_head_computes_nothing():
    types = LAUNCHER["available_node_types"]
    assert [name for name, one in types.items() if one["resources"].get("profiler")] == ["profiler"]
    assert types["profiler"]["min_workers"] >= 1
    assert types["head"]["resources"] == {"CPU": 0}
    assert HEAD["rayStartParams"]["num-cpus"] == "0"
    measuring = [name for name, group in GROUPS.items() if "resources" in group["rayStartParams"]]
    assert measuring == ["profiler"]
    assert json.loads(json.loads(GROUPS["profiler"]["rayStartParams"]["resources"])) == {"profiler": 1}
    assert GROUPS["profiler"]["minReplicas"] >= 1


def test_both_files_have_the_same_groups_of_the_same_size():
    types = {name.removesuffix("_worker"): one for name, one in LAUNCHER["available_node_types"].items()}
    assert types.keys() - {"head"} == GROUPS.keys()
    for name, group in GROUPS.items():
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert float(limits["cpu"]) == types[name]["resources"]["CPU"]
        assert float(limits.get("nvidia.com/gpu", 0)) == types[name]["resources"].get("GPU", 0)


@pytest.mark.parametrize("group", [HEAD, *GROUPS.values()], ids=["head", *GROUPS])
def test_a_pod_has_one_container_with_whole_resources_and_the_credentials(group):
    (container,) = group["template"]["spec"]["containers"]
    assert container["image"] == LAUNCHER["docker"]["image"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["envFrom"][0]["secretRef"]["name"]
    assert set(group["rayStartParams"]) <= {"num-cpus", "dashboard-host", "resources"}
    assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    if group is not HEAD:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_job_is_a_job_of_kuberay_and_its_command_is_one_of_the_runner():
    from grid.run.options import parse

    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    ray = re.search(r"^ray\[.*\]==(.*)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] == ray[1]
    assert JOB["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}, "its dashboard listens to the cluster"
    program, script, *arguments = JOB["spec"]["entrypoint"].split()
    assert (program, script) == ("python", "runner.py")
    assert parse(arguments).address == "auto"


def test_what_a_user_has_to_change_is_marked_and_no_secret_is_in_the_files():
    for file in CLUSTER.iterdir():
        text = file.read_text()
        assert not re.search(r"AKIA[0-9A-Z]{16}|(?i:password|secret_access_key)\s*[:=]\s*\S", text), file
        if file.suffix == ".yaml":
            assert text.count("CHANGE") >= 3
