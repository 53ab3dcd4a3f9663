"""Whole runs on the toy suite: verdicts, resume, failures that stay in their cell, interruptions, damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest

import amb
from amb.api.run import Run
from amb.execution.jobs import SuspectJob
from amb.execution.planning import make_plan, n_suspects
from amb.execution.steps import Steps
from amb.plugin.manager import Manager
from amb.runtime.progress import Silent
from amb.runtime.scratch import clear_abandoned, open_scratch
from amb.store.lookup import Lookup, NotStored
from tests.conftest import QUICK, run_toy


def by_suspect(run: Run) -> dict[str, Any]:
    return {result.cell.suspect: result for result in run.results}


class Fingerprint(amb.Method):
    """A fingerprint: the labels that the owner's embedding gives to triggers."""

    name: ClassVar[str] = "toy-fingerprint"
    access: ClassVar[amb.Access] = "features"
    default_tau: ClassVar[int] = 0  # type: ignore[assignment]

    def embed(self, owner: Any, ctx: amb.Context) -> amb.Embedding:
        images = ctx.split("trigger").batch(range(16)).images
        labels = owner.features(images).argmax(dim=1)
        tensors = {"images": images.numpy(), "labels": labels.numpy()}
        return amb.Embedding(owner, amb.Key(self.canonical(), owner.digest(), tensors))

    def extract(self, suspect: amb.SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        import torch

        seen = suspect.features(torch.from_numpy(key.tensors["images"])).argmax(dim=1)
        return amb.Evidence(key.tensors["labels"][:, None], seen.numpy()[:, None], alphabet=32)


class Labels(amb.Method):
    """A fingerprint of classifiers: the labels that the owner gives to triggers."""

    name: ClassVar[str] = "toy-labels"
    access: ClassVar[amb.Access] = "labels"
    protects: ClassVar[Any] = "classifier"
    default_tau: ClassVar[int] = 0  # type: ignore[assignment]
    n: int = 16
    """How many triggers."""

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        return "no classification head" if facts.n_classes is None else None

    def embed(self, owner: Any, ctx: amb.Context) -> amb.Embedding:
        images = ctx.split("trigger").batch(range(self.n)).images
        tensors = {"images": images.numpy(), "labels": owner.logits(images).argmax(dim=1).numpy()}
        return amb.Embedding(owner, amb.Key(self.canonical(), owner.digest(), tensors))

    def extract(self, suspect: amb.SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        import torch

        seen = suspect.labels(torch.from_numpy(key.tensors["images"]))
        return amb.Evidence(key.tensors["labels"][:, None], seen.numpy()[:, None], alphabet=3)


class Fragile(amb.Attack):
    """An attack that raises."""

    name: ClassVar[str] = "fragile"

    def apply(self, model: Any, ctx: amb.Context) -> Any:
        raise RuntimeError("it broke")


class Inapplicable(amb.Attack):
    """An attack that does not apply."""

    name: ClassVar[str] = "inapplicable"

    def skip(self, model: Any) -> str:
        return "nothing to attack"

    def apply(self, model: Any, ctx: amb.Context) -> Any:
        raise AssertionError("skipped attacks are not applied")


class Greedy(amb.Attack):
    """An attack that looks at the owner's data."""

    name: ClassVar[str] = "greedy"

    def apply(self, model: Any, ctx: amb.Context) -> Any:
        ctx.split("owner")
        return model.copy()


class Impatient(amb.Attack):
    """An attack during which the user presses Ctrl-C."""

    name: ClassVar[str] = "impatient"

    def apply(self, model: Any, ctx: amb.Context) -> Any:
        raise KeyboardInterrupt


class Leaving(amb.Attack):
    """An attack that ends the process in one way or another, or moves it to another folder, and prints."""

    name: ClassVar[str] = "leaving"
    how: str = "exit"

    def apply(self, model: Any, ctx: amb.Context) -> Any:
        os.chdir(ctx.folder)
        if self.how == "exit":
            sys.exit(0)
        if self.how == "os-exit":
            os._exit(0)
        if self.how == "generator":
            raise GeneratorExit
        return model.copy()


class Meddler:
    """An observer that changes what it is handed, and then leaves."""

    @amb.hookimpl
    def amb_cell_finished(self, run: Any, result: Any) -> None:
        with pytest.raises(TypeError, match="copy them first"):
            result.utility["knn"] = 0.0
        with pytest.raises(AttributeError):
            run.results.clear()
        raise SystemExit(0)


class MorePlugins:
    """The components above."""

    @amb.hookimpl
    def amb_register_methods(self) -> list[Any]:
        return [Fingerprint, Labels]

    @amb.hookimpl
    def amb_register_attacks(self) -> list[Any]:
        return [Fragile, Inapplicable, Greedy, Impatient, Leaving]


@pytest.fixture
def engine_manager(manager: Manager) -> Manager:
    manager.register(MorePlugins(), "more")
    return manager


def test_a_watermark_is_found_on_its_model_and_not_on_others(manager: Manager, tmp_path: Path) -> None:
    results = by_suspect(run_toy(manager, tmp_path))
    assert set(results) == {"toy/other", "unmarked owner", "unattacked", "prune40"}
    assert results["unattacked"].verdict.detection_rate == 1.0
    assert results["toy/other"].verdict.detection_rate < 0.5
    assert results["unmarked owner"].cell.sibling
    assert results["unattacked"].verdict.n_negatives == 2
    assert results["toy/other"].verdict.n_negatives == 1, "a negative is not judged by itself"
    assert results["prune40"].cell.attack == "prune:amount=0.4"
    assert set(results["prune40"].seconds) == {"embed", "attack", "extract"}


def test_the_second_run_computes_nothing_and_says_the_same(manager: Manager, tmp_path: Path) -> None:
    first, second = run_toy(manager, tmp_path), run_toy(manager, tmp_path)
    assert not any(result.cached for result in first.results)
    assert all(result.cached for result in second.results)
    assert [result.verdict for result in first.results] == [result.verdict for result in second.results]
    assert [result.seconds for result in first.results] == [result.seconds for result in second.results]


def test_another_seed_is_another_key(manager: Manager, tmp_path: Path) -> None:
    one, two = run_toy(manager, tmp_path, seed=0), run_toy(manager, tmp_path, seed=1)
    assert one.embeddings[0].digests["key"] != two.embeddings[0].digests["key"]


def test_same_seed_in_another_folder_gives_the_same_digests(manager: Manager, tmp_path: Path) -> None:
    one, two = run_toy(manager, tmp_path / "a"), run_toy(manager, tmp_path / "b")
    assert [result.digests for result in one.results] == [result.digests for result in two.results]


def test_a_fingerprint_has_no_siblings_and_finds_its_copies(engine_manager: Manager, tmp_path: Path) -> None:
    results = by_suspect(run_toy(engine_manager, tmp_path, methods=["toy-fingerprint"]))
    assert results["unattacked"].verdict.detection_rate == 1.0
    assert results["unmarked owner"].status == "skipped"
    assert "copy of the protected model" in results["unmarked owner"].reason


def test_a_method_of_classifiers_gets_one_from_the_suite_once(engine_manager: Manager, tmp_path: Path) -> None:
    attacks = ["prune20", "finetune-segmentation:epochs=1,n_images=8"]
    methods = ["toy-labels", "toy-labels:n=8"]
    run = run_toy(engine_manager, tmp_path, methods=methods, attacks=attacks)
    results = by_suspect(run)
    assert results["unattacked"].verdict.detection_rate == 1.0
    assert "head_accuracy" in results["unattacked"].utility, "the owner has no head of its own"
    assert "head_accuracy" in results["toy/other"].utility, "nor has the innocent model"
    assert results[attacks[1]].status == "skipped", "a segmenter gives no labels"
    assert results["unmarked owner"].status == "skipped"
    assert run.embeddings[0].digests["owner"] == run.embeddings[1].digests["owner"]
    made = len(list((tmp_path / "store" / "model").iterdir()))
    assert made == 2 + 2, "a classifier each of owner and other, and two attacked models that both methods share"
    run_toy(engine_manager, tmp_path, methods=methods, attacks=[], seed=1)
    assert len(list((tmp_path / "store" / "model").iterdir())) == made, "classifiers belong to the suite, not to a seed"


@pytest.mark.parametrize("how", ["exit", "os-exit", "generator"])
def test_a_plugin_cannot_end_the_run(engine_manager: Manager, tmp_path: Path, how: str) -> None:
    before = Path.cwd()
    results = by_suspect(run_toy(engine_manager, tmp_path, attacks=[f"leaving:how={how}", "leaving:how=not"]))
    assert results[f"leaving:how={how}"].status == "failed"
    assert "PluginExit: the plugin" in results[f"leaving:how={how}"].reason
    assert results["leaving:how=not"].status == "ok"
    assert Path.cwd() == before


def test_an_observer_can_neither_change_results_nor_end_the_run(engine_manager: Manager, tmp_path: Path) -> None:
    engine_manager.register(Meddler(), "meddler")
    warnings: list[str] = []
    run = run_toy(engine_manager, tmp_path, warnings)
    assert [each.status for each in run.results] == ["ok"] * 4
    assert sum("plugin 'meddler' failed" in each and "SystemExit(0)" in each for each in warnings) == 4


def test_what_plugins_print_spoils_no_document(tmp_path: Path) -> None:
    code = (
        "from amb.runtime.guard import divert_stdout; import os, sys, subprocess\n"
        "with divert_stdout():\n"
        "    print('loud'); os.write(1, b'raw\\n'); subprocess.run(['echo', 'child']); sys.stdout.close()\n"
        "print('{}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"
    assert sorted(done.stderr.split()) == ["child", "loud", "raw"]


def test_scratch_of_a_killed_process_is_cleared_and_no_other() -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    left = Path(tempfile.mkdtemp(prefix=f"amb-{int(gone.stdout)}-"))
    with open_scratch() as own:
        clear_abandoned()
        assert own.is_dir()
        assert not left.exists()
    assert not own.exists()


def test_a_failure_stays_in_its_cell(engine_manager: Manager, tmp_path: Path) -> None:
    run = run_toy(engine_manager, tmp_path, attacks=["fragile", "inapplicable", "greedy", "prune20"])
    results = by_suspect(run)
    assert run.failed
    assert results["fragile"].status == "failed"
    assert "RuntimeError: it broke" in results["fragile"].reason
    assert "it broke" in (run.folder / "tracebacks" / "001.txt").read_text()
    assert results["inapplicable"].status == "skipped"
    assert results["inapplicable"].reason == "nothing to attack"
    assert "may use only: attacker" in results["greedy"].reason
    assert results["prune20"].status == "ok"
    found = Steps(run.plan, Lookup(tmp_path / "store"), Silent(), engine_manager.registry)
    at = {suspect.name: SuspectJob(0, index) for index, suspect in enumerate(run.plan.suspects)}
    assert found.do(at["inapplicable"]).status == "skipped", "the reason is kept, so nothing is asked again"
    with pytest.raises(NotStored):  # a failure is not kept
        found.do(at["fragile"])
    again = by_suspect(run_toy(engine_manager, tmp_path, attacks=["fragile"]))
    assert again["fragile"].status == "failed"
    assert not again["fragile"].cached


def test_ctrl_c_keeps_what_is_finished(engine_manager: Manager, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_toy(engine_manager, tmp_path, attacks=["impatient"])
    lines = next((tmp_path / "runs").glob("*/results.jsonl")).read_text().splitlines()
    assert [json.loads(line)["suspect"] for line in lines] == ["toy/other", "unmarked owner", "unattacked"]
    assert not list((tmp_path / "store").glob("*/.draft-*"))
    assert all(result.cached for result in run_toy(engine_manager, tmp_path, attacks=[]).results)


@pytest.mark.parametrize("name", ["key.safetensors", "model.safetensors", "evidence.npz", "record.json"])
def test_a_damaged_entry_is_said_and_made_again(manager: Manager, tmp_path: Path, name: str) -> None:
    first = run_toy(manager, tmp_path)
    for path in (tmp_path / "store").glob(f"*/*/{name}"):
        path.write_bytes(path.read_bytes()[:-7])
    said: list[str] = []
    again = run_toy(manager, tmp_path, warnings=said)
    assert any("is damaged" in line for line in said)
    assert [result.verdict for result in again.results] == [result.verdict for result in first.results]


def test_a_chain_reuses_the_steps_it_shares(manager: Manager, tmp_path: Path) -> None:
    run_toy(manager, tmp_path, attacks=["prune20"])
    before = len(list((tmp_path / "store" / "model").iterdir()))
    results = by_suspect(run_toy(manager, tmp_path, attacks=["prune20+prune40"]))
    assert len(list((tmp_path / "store" / "model").iterdir())) == before + 1
    assert results["prune20+prune40"].cell.attack == "prune:amount=0.2+prune:amount=0.4"


def test_what_a_run_writes_holds_no_key(manager: Manager, tmp_path: Path) -> None:
    run = run_toy(manager, tmp_path)
    key = amb.Key.load(next((tmp_path / "store" / "embed").glob("*/key.safetensors")))
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"results.jsonl", "run.json"}
    for path in files:
        text = "".join(path.read_text().split())
        assert not [row for row in key.tensors["messages"].tolist() if json.dumps(row, separators=(",", ":")) in text]
    (evidence,) = {path.stat().st_mode & 0o777 for path in (tmp_path / "store" / "evidence").glob("*/evidence.npz")}
    assert evidence == 0o600
    assert json.loads((run.folder / "run.json").read_text())["schema"] == 2


def test_utility_does_not_depend_on_the_seed_and_is_measured_once(manager: Manager, tmp_path: Path) -> None:
    run_toy(manager, tmp_path, seed=0, attacks=[])
    before = {path.name for path in (tmp_path / "store" / "utility").iterdir()}
    run_toy(manager, tmp_path, seed=1, attacks=[])
    assert len({path.name for path in (tmp_path / "store" / "utility").iterdir()} - before) == 1, "the new marked model"


class Broken(Labels):
    """A method that reads no symbols."""

    name: ClassVar[str] = "toy-broken"

    def extract(self, suspect: amb.SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        seen = super().extract(suspect, key, ctx)
        return amb.Evidence(seen.expected, seen.observed * float("nan"), alphabet=3)


def test_evidence_that_is_none_fails_its_cell_and_names_the_method(manager: Manager, tmp_path: Path) -> None:
    run = run_toy(manager, tmp_path, methods=[Broken()], attacks=[])
    assert {result.status for result in run.results if result.cell.suspect == "unattacked"} == {"failed"}
    reason = by_suspect(run)["unattacked"].reason
    assert reason.startswith("toy-broken on unattacked: ValueError: The evidence's observed has the type float64")


def test_two_spellings_of_a_chain_are_one_suspect(manager: Manager) -> None:
    for attacks, names in {
        ("none+prune40",): ["prune40"],
        ("none+prune40", "prune40", "prune:amount=0.4", "prune40+none"): ["prune40"],
        ("prune:amount=0.4", "prune40"): ["prune:amount=0.4"],
        ("none", "none+none"): [],
        ("prune20+none+prune40", "prune20+prune40"): ["prune20+prune40"],
    }.items():
        plan = make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=attacks)
        positives = [each for each in plan.suspects if each.kind == "positive"]
        assert [each.name for each in positives] == ["unattacked", *names]
        assert not any("none" in each.attack for each in positives[1:])
        assert n_suspects(manager.registry, plan.suite, attacks) == len(plan.suspects)
