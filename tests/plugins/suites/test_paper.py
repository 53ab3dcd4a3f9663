"""The suites on data of one's own disk: contracts, and whole runs on small written data with small random models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import amb
from amb import build_model
from amb.evaluation import utility as fidelity
from amb.models.heads import SegmentationHead
from amb.plugin.manager import Manager
from amb.runtime.paths import DATA, DOWNLOAD, OFFLINE
from amb.testing import SuiteContract, toy_context, toy_model
from amb.training.loop import new_head
from amb_suites import real
from amb_suites.folder import FolderSuite
from amb_suites.paper import CLIP, DINOV2, TASKS, PaperClipSuite, PaperDinoSuite
from tests.command import run_amb
from tests.conftest import QUICK, run_toy
from tests.written import (
    write_classes,
    write_ecommerce,
    write_foodseg,
    write_imagenet,
    write_pet,
)

WRITE = {"pet": write_pet, "ecommerce": write_ecommerce, "foodseg103": write_foodseg}
TRANSFORMER = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 4}
SMALL = {"image_size": 16, "n_probe": 24, "n_test": 24}
FEW = QUICK.replace("steps=150", "steps=10")
"""Too few to embed anything; what is tested is that every role is read and every cell judged."""
MODELS = {"model": "file/owner", "negatives": "file/other|other-seed;file/registers|registers"}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with ImageNet in it."""
    for name in (DOWNLOAD, *OFFLINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(DATA, str(tmp_path / "data"))
    real._serve_roles.cache_clear()
    write_imagenet(tmp_path / "data", n=16)
    return tmp_path / "data"


@pytest.fixture
def models(tmp_path: Path, manager: Manager) -> None:
    """Three small random transformers in files, where tests run."""
    for seed, (name, more) in enumerate({"owner": {}, "other": {}, "registers": {"reg_tokens": 2}}.items()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = build_model({"loader": "timm", "name": "vit_tiny_patch16_224", "options": {**TRANSFORMER, **more}})
        amb.save_checkpoint(made.eval(), tmp_path / name)


def spec(name: str, **params: Any) -> str:
    return f"{name}:{','.join(f'{key}={value}' for key, value in params.items())}"


@pytest.mark.usefixtures("manager")
class TestPaperClip(SuiteContract):
    """On Pet."""

    @pytest.fixture
    def suite(self, root: Path) -> amb.Suite:
        write_pet(root)
        return PaperClipSuite.create({**SMALL, **MODELS})


class TestPaperDino(TestPaperClip):
    """On FoodSeg103."""

    @pytest.fixture
    def suite(self, root: Path) -> amb.Suite:
        write_foodseg(root)
        return PaperDinoSuite.create({**SMALL, **MODELS, "task": "foodseg103"})


class TestFolder(TestPaperClip):
    """On a folder without parts."""

    @pytest.fixture
    def suite(self, root: Path) -> amb.Suite:
        write_classes(root / "mine/birds", ["crow", "jay"], 20)
        return FolderSuite.create({**SMALL, **MODELS, "data": "mine/birds"})


@pytest.mark.parametrize("cls", [PaperClipSuite, PaperDinoSuite])
def test_the_papers_models_stand_against_each_other(cls: type[PaperClipSuite]) -> None:
    suite = cls()
    negatives = {each.ref: each.group for each in suite.independents()}
    assert suite.owner() == {PaperClipSuite: CLIP, PaperDinoSuite: DINOV2}[cls]
    assert suite.owner() not in negatives
    assert {CLIP, DINOV2} <= {suite.owner(), *negatives}
    assert negatives["hf/facebook/dinov2-with-registers-large"] == "registers"
    assert "timm/vit_large_patch16_224.mae" in negatives


def test_classes_of_negatives_are_those_of_the_concepts() -> None:
    concepts = (Path(__file__).parents[3] / "docs/concepts.md").read_text()
    suite = FolderSuite.create({"model": "file/x", "data": "d", "negatives": "file/a;file/b|registers"})
    groups = [each.group for made in (PaperClipSuite(), PaperDinoSuite(), suite) for each in made.independents()]
    assert set(groups) >= {"other", "registers"}
    assert all(f"| `{group}` |" in concepts for group in groups)


@pytest.mark.parametrize("text", ["", "file/a;", ";file/a", "noslash", "file/a|", "file/a|b|c"])
def test_negatives_that_do_not_parse_are_refused(text: str) -> None:
    with pytest.raises(amb.BadParamsError, match="negatives is references joined by ';'"):
        FolderSuite.create({"model": "file/x", "data": "d", "negatives": text})


@pytest.mark.parametrize("task", TASKS)
def test_roles_come_from_the_data_that_the_paper_uses_them_on(root: Path, task: str) -> None:
    WRITE[task](root)
    suite = PaperClipSuite.create({"task": task, "image_size": 16})
    titles = {role: suite.split(role).served.index.title for role in get_args(amb.Role)}
    assert titles["owner"] == titles["trigger"] == "ImageNet (ILSVRC 2012)"
    assert titles["attacker"] == titles["test"] == TASKS[task].title
    downstream = TASKS[task]().index().parts
    for role, part in (("attacker", "train"), ("test", "test")):
        assert sorted(suite.files(role)) == sorted(item.name for item in downstream[part])


def test_downstream_data_without_a_test_part_is_cut(root: Path) -> None:
    write_classes(root / "ecommerce/train", ["GROCERY", "PET_SUPPLIES"], 10)
    suite = PaperClipSuite.create({"task": "ecommerce"})
    assert (len(suite.files("attacker")), len(suite.files("test"))) == (16, 4)
    assert not set(suite.files("attacker")) & set(suite.files("test"))


def test_a_plan_names_both_data_sets(root: Path) -> None:
    write_pet(root)
    assert [each.cached for each in PaperClipSuite().fetches()] == [True, True]
    assert [each.cached for each in PaperClipSuite.create({"task": "foodseg103"}).fetches()] == [True, False]


# Whole runs


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.usefixtures("models")
def test_the_papers_suite_runs_from_owner_to_verdict(manager: Manager, tmp_path: Path, root: Path, task: str) -> None:
    WRITE[task](root, n=16)
    text = spec("paper-clip", **SMALL, **MODELS, task=task)
    run = run_toy(
        manager,
        tmp_path / "out",
        suite=text,
        methods=[FEW],
        attacks=["prune40", "finetune:epochs=1,n_images=16,batch=8"],
    )
    assert [(cell.status, cell.reason) for cell in run.results if cell.status == "failed"] == []
    read = {cell.cell.suspect: cell.status for cell in run.results}
    assert {name for name, status in read.items() if status == "ok"} >= {"file/other", "unattacked", "prune40"}
    figures = next(cell.utility for cell in run.results if cell.cell.suspect == "unattacked")
    assert ("miou" in figures) == (task != "ecommerce")
    assert all(0 <= figure <= 1 for figure in figures.values())


@pytest.mark.usefixtures("models")
def test_a_folder_of_ones_own_runs_from_owner_to_verdict(manager: Manager, tmp_path: Path, root: Path) -> None:
    write_classes(root / "birds/train", ["crow", "jay", "wren"], 20, ending="jpg")
    write_classes(root / "birds/val", ["crow", "jay", "wren"], 8, first=50)
    run = run_toy(manager, tmp_path / "out", suite=spec("folder", **SMALL, **MODELS, data="birds"), methods=[FEW])
    read = {cell.cell.suspect: cell.status for cell in run.results}
    assert set(read.values()) == {"ok"}
    assert {"unattacked", "file/other", "file/registers", "owner with another key"} <= set(read)


@pytest.mark.usefixtures("models")
def test_segmentation_is_trained_on_the_papers_masks(manager: Manager, tmp_path: Path, root: Path) -> None:
    write_pet(root)
    attack = "finetune:task=segmentation,epochs=1,n_images=16,batch=8"
    run = run_toy(
        manager, tmp_path / "out", suite=spec("paper-clip", **SMALL, **MODELS), methods=[FEW], attacks=[attack]
    )
    tuned = next(cell for cell in run.results if cell.cell.suspect.startswith("finetune"))
    assert tuned.status == "ok"
    assert 0 <= tuned.utility["head_miou"] <= 1


def test_missing_data_ends_the_command_line_with_3(tmp_path: Path) -> None:
    write_classes(tmp_path / "data/birds", ["crow", "jay"], 10)
    arguments = ["--method", FEW, "--suite", "folder:model=tiny/owner,data=bird", "--data", str(tmp_path / "data")]
    environment = {**os.environ, "AMB_DISABLE_PLUGINS": "mlflow"}
    done = run_amb("run", *arguments, env=environment)
    lines = [line for line in done.stderr.splitlines() if "amb: " in line]
    assert done.returncode == 3
    assert len(lines) == 1
    assert str(tmp_path / "data/bird") in lines[0]


# Real sizes


class ManyClasses:
    """Masks of as many classes as FoodSeg103 has, on images of 224 pixels."""

    n_classes = 2
    n_mask_classes = 104

    def __len__(self) -> int:
        return 1

    def batch(self, indices: Any) -> amb.Batch:
        return amb.Batch(
            torch.zeros(1, 3, 224, 224), torch.zeros(1, dtype=torch.int64), torch.zeros(1, 224, 224).long()
        )


def test_a_segmentation_head_of_many_classes_stays_small(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path)
    head = new_head(toy_model(), ManyClasses(), "segmentation", ctx)
    assert isinstance(head, SegmentationHead)
    assert head.side == 4
    assert head(torch.rand(1, 17, 32), 1, 224).shape == (1, 104, 224, 224)


def test_a_segmentation_head_of_few_classes_answers_for_each_pixel(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path)
    assert new_head(toy_model(), ctx.split("attacker"), "segmentation", ctx).side == 4


def test_the_mask_probe_of_many_classes_answers_for_each_token() -> None:
    assert fidelity._count_places(14, 104) == 1
    assert fidelity._count_places(14, 3) == 7
    assert fidelity._count_places(16, 3) == 8
    assert fidelity._count_places(8, 2) == 8  # the convolutional networks of tiny


def test_tokens_that_hold_their_own_class_give_a_perfect_coarse_probe() -> None:
    """Each token's mask is of one class, so that answering by token loses nothing."""
    classes = torch.randint(0, 104, (40, 4, 4), generator=torch.Generator().manual_seed(0))
    classes[0] = torch.arange(88, 104).view(4, 4)
    patches = torch.nn.functional.one_hot(classes, 104).float()
    masks = classes.repeat_interleave(14, 1).repeat_interleave(14, 2)
    weights = fidelity._fit_places(patches, masks, 104, 1, 7)
    scores = fidelity._add_bias(patches.flatten(0, 2).double()) @ weights
    assert torch.equal(scores.argmax(1), classes.flatten())
    assert fidelity._score_mask_probe(patches, masks, patches, masks) > 0.5  # bilinear edges between tokens


def test_sums_over_chunks_are_those_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(10, 4, 4, 6, generator=generator)
    masks = torch.randint(0, 3, (10, 16, 16), generator=generator)
    whole = fidelity._fit_places(patches, masks, 3, 2, 10)
    torch.testing.assert_close(fidelity._fit_places(patches, masks, 3, 2, 3), whole)


def test_a_class_that_only_the_test_masks_have_counts_as_missed() -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(6, 2, 2, 4, generator=generator)
    known, test = torch.zeros(6, 8, 8).long(), torch.full((6, 8, 8), 2)
    assert fidelity._score_mask_probe(patches, known, patches, test) == 0.0


@pytest.mark.parametrize("n_classes", [37, 103, 104])
def test_mean_iou_of_many_classes_is_that_of_a_count(n_classes: int) -> None:
    """Classes that are neither guessed nor there do not count; one that is guessed and not there counts as 0."""
    generator = torch.Generator().manual_seed(n_classes)
    truth = torch.randint(0, n_classes // 2, (3, 20, 20), generator=generator)
    guess = torch.where(torch.rand(truth.shape, generator=generator) < 0.6, truth, truth + 3)
    ious = []
    for c in range(n_classes):
        both, either = ((guess == c) & (truth == c)).sum().item(), ((guess == c) | (truth == c)).sum().item()
        ious += [both / either] if either else []
    assert 0 < len(ious) < n_classes
    assert 0.0 in ious
    assert fidelity.mean_iou(guess, truth, n_classes) == pytest.approx(sum(ious) / len(ious), abs=1e-6)
