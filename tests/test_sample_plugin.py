"""A third party's distribution, installed into a real environment of its own and used from there."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "sample_plugin"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that sees this one's packages, with the sample plugin installed by pip."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=True)
    ours = [sysconfig.get_path("purelib"), str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "plugins")]
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join(ours) + "\n")
    install = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet", str(SAMPLE)]
    subprocess.run([str(folder / "bin" / "python"), *install], check=True)
    return folder


def amb(environment: Path, *args: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONNOUSERSITE": "1"} | {"AMB_DISABLE_PLUGINS": "mlflow"}
    command = [str(environment / "bin" / "python"), "-m", "amb", *args]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300, check=False)


def test_it_is_found_by_its_entry_point(environment: Path) -> None:
    done = amb(environment, "plugins", "--format", "json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["sample"]["distribution"] == "amb-sample-plugin"
    assert rows["sample"]["provides"] == ["nearest", "nearest-small", "jitter"]


def test_its_pages_are_made_from_its_declaration(environment: Path) -> None:
    done = amb(environment, "show", "jitter")
    assert "Add Gaussian noise" in done.stdout
    assert "amb-sample-plugin 0.0.1" in done.stdout


def test_it_runs_beside_the_built_in_ones(environment: Path) -> None:
    done = amb(
        environment, "run", "--method", "nearest-small", "--attack", "jitter", "--attack", "prune20", "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    cells = {cell["suspect"]: cell for cell in document["cells"]}
    assert cells["unattacked"]["detection_rate"] == 1.0
    assert cells["jitter"]["status"] == cells["tiny/convnet"]["status"] == "ok"
    assert cells["unmarked owner"]["status"] == "skipped"
    assert document["run"]["plugins"]["sample"] == "amb-sample-plugin 0.0.1"


def test_it_passes_the_shipped_contracts(environment: Path) -> None:
    command = [
        str(environment / "bin" / "python"),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(SAMPLE / "tests"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
