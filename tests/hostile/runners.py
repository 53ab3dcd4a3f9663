"""What is done with hostile input of each kind: as a user would, in the current folder. To add a kind, add a function."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


def warm_up() -> None:
    """Import, once for all inputs, what they would have to wait for."""
    import amb
    import amb.evaluation.verdict
    import amb.models.size_limits
    import amb.report.page
    import amb.results.bundle
    import amb.results.schema
    import amb_suites.images  # noqa: F401
    from tests.hostile.cards import CARDS

    for architecture in (CARDS["timm"], CARDS["hf"], CARDS["open_clip"]):
        amb.build_model(architecture)


@cache
def _registry() -> Any:
    from amb.plugin.manager import manager

    return manager().registry


def run_yaml(data: bytes) -> None:
    """A sweep file, as far as its dry run counts."""
    from amb.sweeps.reader import read_sweep

    Path("s.yaml").write_bytes(data)
    sweep = read_sweep(Path("s.yaml"), _registry())
    if sweep.n_cells(_registry()) < 2000:
        plans = sweep.plans(_registry())
        [repr(plan.cells()) for plan in plans]


def run_sweep_path(data: bytes) -> None:
    """A sweep file that is none: a pipe, a device, a folder."""
    from amb.sweeps.reader import read_sweep

    read_sweep(_make_place(data.decode(), "s.yaml"), _registry())


def run_definition(data: bytes) -> None:
    """A sweep that Python code defines; the input is an expression."""
    from amb.sweeps.reader import check_sweep

    check_sweep(eval(data), _registry())  # our own table, and the point is what comes out


def run_reference(data: bytes) -> None:
    """A model reference: loaded, and asked what it fetches, without a network."""
    import amb
    from amb.models.references import load_skeleton

    amb.go_offline()
    ref = data.decode("utf-8", "surrogatepass")
    try:
        amb.load_model(ref)
    finally:
        load_skeleton(ref, _registry())


def run_model_place(data: bytes) -> None:
    """A model file of which one half is a pipe or a device: `card fifo`."""
    import amb

    which, kind = data.decode().split()
    _write_model({})
    Path(f"m.{'json' if which == 'card' else 'safetensors'}").unlink()
    _make_place(kind, f"m.{'json' if which == 'card' else 'safetensors'}")
    amb.load_model("file/m")


def run_card(data: bytes) -> None:
    """A card beside a small file of weights: loaded, and built for a plan."""
    import amb
    from amb.models.references import load_skeleton

    _write_model({})
    Path("m.json").write_bytes(data)
    try:
        amb.load_model("file/m")
    finally:
        load_skeleton("file/m", _registry())


def run_changes(data: bytes) -> None:
    """What is different on a card."""
    run_card(json.dumps({"format": 1, "digest": "0" * 32} | json.loads(data)).encode())


def run_safetensors(data: bytes) -> None:
    """A file of weights beside a sound card."""
    import amb

    _write_model({})
    Path("m.safetensors").write_bytes(data)
    amb.load_model("file/m")


def run_long_header(data: bytes) -> None:
    """A header of very many names, made here so that it need not be sent: the input says how many."""
    facts = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    header = ("{" + ",".join([f'"t{n}":{facts}' for n in range(int(data))]) + "}").encode()
    run_safetensors(len(header).to_bytes(8, "little") + header + b"\0")


def run_sparse(data: bytes) -> None:
    """A file that says to be very large."""
    import amb

    _write_model({})
    with Path("m.safetensors").open("wb") as file:
        file.truncate(int(data))
    amb.load_model("file/m")


def run_attack(data: bytes) -> None:
    """A chain of attacks."""
    chain = _registry().attack_chain(data.decode("utf-8", "surrogatepass"))
    "+".join(each.canonical() for each in chain)


def run_method(data: bytes) -> None:
    """A method's spec."""
    _registry().method(data.decode("utf-8", "surrogatepass")).canonical()


def run_suite(data: bytes) -> None:
    """A suite's spec."""
    _registry().suite(data.decode("utf-8", "surrogatepass")).canonical()


def run_evidence(data: bytes) -> None:
    """Evidence of a broken method, an expression; it has to be refused in words."""
    from amb.api.records import Evidence

    try:
        Evidence(*eval(data, {"np": np}))  # our own table
    except ValueError as error:
        assert str(error).startswith(("The evidence's", "Evidence needs")), error
    else:
        raise AssertionError("it was accepted")


def run_environment(data: bytes) -> None:
    """Variables, and then a command that reads them."""
    from click.testing import CliRunner

    from amb.cli import cli
    from amb.errors import AmbError
    from amb.plugin.manager import manager

    os.environ.update(json.loads(data))
    manager.cache_clear()
    for command in (["list", "suites"], ["plugins"], ["show", "prune"]):
        found = CliRunner().invoke(cli, command)
        if isinstance(found.exception, AmbError):
            raise found.exception
        if found.exception and not isinstance(found.exception, SystemExit):
            raise found.exception


def run_plugin(data: bytes) -> None:
    """A plugin's module, our own text: registered, listed, looked up and used in a plan."""
    from amb.execution.planning import make_plan
    from amb.plugin.manager import Manager

    space: dict[str, Any] = {}
    exec(data, space)  # a plugin is code; this one is of our table
    fresh = Manager()
    fresh.register(type("Plugin", (), space)(), "hostile")
    registry = fresh.registry
    [kind.names() for kind in registry.kinds.values()]
    make_plan(registry, suite="tiny", methods=["activemark"], attacks=[space.get("ATTACK", "prune40")])


def run_bundle(data: bytes) -> None:
    """A bundle: verified, imported, and reported in every format."""
    Path("x.zip").write_bytes(data)
    _import_bundle()


def run_large_bundle(data: bytes) -> None:
    """A bundle that is made here, because it is too large to be sent."""
    from tests.hostile.bundles import LARGE

    LARGE[data.decode()](Path("x.zip"))
    _import_bundle()


def run_bundle_place(data: bytes) -> None:
    """A bundle that is none: a pipe, a device, a folder."""
    _make_place(data.decode(), "x.zip")
    _import_bundle()


def _import_bundle() -> None:
    from amb.report.formats import reporter_of
    from amb.report.layouts import with_tables
    from amb.results.bundle import read_bundle, write_runs
    from amb.results.collect import collect

    write_runs(read_bundle(Path("x.zip")), Path("out"))
    document = with_tables(collect(Path("out")), "summary")
    for form in ("table", "csv", "html"):
        reporter_of(form, _registry()).render(document)


def run_image(data: bytes) -> None:
    """A file called an image among sound ones: looked at, listed, decoded."""
    Path("data/birds/crow").mkdir(parents=True)
    Path("data/birds/crow/a.jpg").write_bytes(data)
    _read_images()


def run_image_place(data: bytes) -> None:
    """An image that is a pipe or a device."""
    Path("data/birds/crow").mkdir(parents=True)
    _make_place(data.decode(), "data/birds/crow/a.jpg")
    _read_images()


def _read_images() -> None:
    from PIL import Image

    os.environ["AMB_DATA"] = "data"
    for bird in ("crow", "jay"):
        Path("data/birds", bird).mkdir(exist_ok=True)
        for number in range(8):
            Image.new("RGB", (40, 30), (number, 0, 0)).save(f"data/birds/{bird}/{number}.png")
    suite = _registry().suite("folder:model=file/x,data=birds,image_size=16")
    suite.data_facts()
    for role in ("owner", "attacker", "trigger", "test"):
        split = suite.split(role)
        split.batch(range(len(split)))


def _make_place(kind: str, name: str) -> Path:
    path = Path(name)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "circle":
        path.symlink_to(name)
    else:
        path.symlink_to(kind)
    return path


def _write_model(changes: dict[str, Any]) -> None:
    """A sound pair of files, of a few weights."""
    from safetensors.numpy import save

    from tests.hostile.cards import CARDS

    card = {"format": 1, "digest": "0" * 32, "architecture": CARDS["timm"], **changes}
    Path("m.json").write_text(json.dumps(card))
    Path("m.safetensors").write_bytes(save({"a": np.zeros(4, np.float32)}))
