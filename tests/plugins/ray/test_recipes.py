"""The recipes for Slurm and Kubernetes have the form that their readers expect; nothing here can run them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from amb.cli import LazyGroup, cli

RECIPES = Path(__file__).parents[3] / "docs" / "recipes"
FIELDS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {"entrypoint", "shutdownAfterJobFinishes", "backoffLimit", "rayClusterSpec"},
    "spec.rayClusterSpec": {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"},
    "spec.rayClusterSpec.headGroupSpec": {"rayStartParams", "template"},
    "spec.rayClusterSpec.workerGroupSpecs.0": {
        "groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template",
    },
}  # fmt: skip
"""Of the custom resource `ray.io/v1`, as far as the recipe uses it."""


def look(manifest: Any, path: str) -> Any:
    for part in filter(None, path.split(".")):
        manifest = manifest[int(part)] if part.isdecimal() else manifest[part]
    return manifest


def require_options(command: list[str]) -> None:
    """Every option of a command of `amb` is one."""
    assert command[0] == "amb"
    known = {flag for param in LazyGroup.get_command(cli, None, command[1]).params for flag in param.opts}
    assert {word for word in command if word.startswith("--")} <= known


def test_the_manifest_has_the_fields_of_a_ray_job() -> None:
    manifest = yaml.safe_load((RECIPES / "kuberay.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    for path, known in FIELDS.items():
        assert set(look(manifest, path)) <= known, path
    cluster = manifest["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}, "head and workers see one store"
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert "nvidia.com/gpu" in head, "the driver runs there, and is given --device cuda"
    require_options(shlex.split(manifest["spec"]["entrypoint"]))


def test_the_batch_script_parses_and_calls_what_there_is() -> None:
    path = RECIPES / "slurm.sh"
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, check=True).stderr == b""
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(path)], check=True)
    text = path.read_text().replace("\\\n", " ")
    for command in ("sweep", "stop"):
        (line,) = [line for line in text.splitlines() if f"amb {command} " in line]
        require_options(shlex.split(line[line.index(f"amb {command}") :].removesuffix("&").partition("' INT")[0]))
    assert text.count("srun ") - text.count("# srun ") == text.count('--cpus-per-task="$SLURM_CPUS_PER_TASK"'), (
        "srun does not take it from the batch script"
    )
