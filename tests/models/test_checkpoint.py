"""Model files: they round-trip, and what a stranger sends is refused with a reason, never run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import amb
from amb.errors import CheckpointError, MissingError, UnknownNameError
from amb.plugin.manager import Manager
from amb.testing import toy_model

pytestmark = pytest.mark.usefixtures("manager")


@pytest.fixture
def stem(tmp_path: Path) -> Path:
    amb.save_checkpoint(toy_model(n_classes=3), tmp_path / "model", {"recipe": "none"})
    return tmp_path / "model"


def edit(stem: Path, **changes: Any) -> None:
    path = stem.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_model_survives_its_file(stem: Path) -> None:
    loaded = amb.load_model(f"file/{stem}")
    assert loaded.digest() == toy_model(n_classes=3).digest()
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(loaded.logits(images), toy_model(n_classes=3).logits(images))
    assert amb.load_model(f"file/{stem}.safetensors").digest() == loaded.digest()


class Evil:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.write_text, (Path("owned"), "x")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_is_refused_and_never_run(stem: Path, protocol: int) -> None:
    stem.with_suffix(".safetensors").write_bytes(pickle.dumps(Evil(), protocol=protocol))
    with pytest.raises(CheckpointError, match="pickle|not a safetensors"):
        amb.load_model(f"file/{stem}")
    assert not Path("owned").exists()


def test_a_torch_file_is_refused_with_the_way_to_convert_it(stem: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, stem.with_suffix(".safetensors"))
    with pytest.raises(CheckpointError, match="is a pickle.*Convert it where you trust it"):
        amb.load_model(f"file/{stem}")
    with pytest.raises(CheckpointError, match="is a pickle by its ending"):
        amb.load_model(f"file/{tmp_path}/model.pth")


def test_a_file_cut_short_is_refused(stem: Path) -> None:
    path = stem.with_suffix(".safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut short"):
        amb.load_model(f"file/{stem}")


def test_changed_weights_are_noticed(stem: Path) -> None:
    path = stem.with_suffix(".safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="does not have the digest on its card"):
        amb.load_model(f"file/{stem}")


def test_weights_that_do_not_fit_are_listed(stem: Path) -> None:
    edit(stem, architecture={"loader": "toy", "dim": 16, "depth": 4, "registers": 0})
    with pytest.raises(CheckpointError, match=r"does not fit its card in \d+ tensors. First: .*file has \("):
        amb.load_model(f"file/{stem}")


def test_missing_files_are_missing_not_wrong(stem: Path) -> None:
    stem.with_suffix(".safetensors").unlink()
    with pytest.raises(MissingError, match="does not exist"):
        amb.load_model(f"file/{stem}")
    with pytest.raises(MissingError, match="does not exist"):
        amb.load_model("file/nowhere")


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": {"loader": "nobody"}},
        {"architecture": {"loader": "file"}},
        {"architecture": {"loader": "timm", "name": "resnet10t", "options": {"checkpoint_path": "/etc/passwd"}}},
        {"architecture": {"loader": "timm", "name": "resnet10t", "options": {"channels": [{"a": 1}]}}},
        {"architecture": {"loader": "timm", "name": ["resnet10t"]}},
        {"architecture": {"loader": "timm", "name": "resnet10t", "options": {"output_stride": 7}}},
        {"architecture": {"loader": "timm", "name": "resnet10t", "pretrained": True}},
        {"heads": {"translation": {}}},
        {"heads": {"classification": {"n_classes": -1}}},
        {"heads": {"classification": {"n_classes": "many"}}},
        {"format": 2},
        {"surprise": 1},
    ],
)
def test_a_strangers_card_is_refused(stem: Path, changes: dict[str, Any]) -> None:
    edit(stem, **changes)
    with pytest.raises(CheckpointError):
        amb.load_model(f"file/{stem}")


def test_a_card_may_only_name_known_architectures(stem: Path) -> None:
    edit(stem, architecture={"loader": "timm", "name": "hf-hub:someone/model"})
    with pytest.raises(UnknownNameError):
        amb.load_model(f"file/{stem}")


def test_a_card_that_is_no_json_is_refused(stem: Path) -> None:
    stem.with_suffix(".json").write_text("{")
    with pytest.raises(CheckpointError, match="is not a model card"):
        amb.load_model(f"file/{stem}")


def test_timm_models_are_the_librarys_own(manager: Manager) -> None:
    import timm

    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "reg_tokens": 2}
    model = amb.build_model({"loader": "timm", "name": "vit_tiny_patch16_224", "options": options})
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, **options)
    net.load_state_dict(model.backbone.net.state_dict())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model.eval().tokens(images), net.eval().forward_features((images - 0.5) / 0.5))
    torch.testing.assert_close(model.features(images), net((images - 0.5) / 0.5))
