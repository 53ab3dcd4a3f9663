"""The front door: runs, sweeps and results from Python, on the toy suite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import amb
from amb.testing.toy import ToyMethod, ToySuite

OUTPUT = "out"


class Faint(amb.Attack):
    """A small noise on every weight, without a plugin."""

    name = "faint"
    sigma: float = 0.001
    """Share of the standard deviation."""

    def apply(self, model, ctx):
        import torch

        attacked = model.copy(f"{model.ref}+faint")
        drawn = ctx.generator("noise")
        for weight in attacked.backbone.parameters():
            weight.data += self.sigma * weight.data.std(correction=0) * torch.randn(weight.shape, generator=drawn)
        return attacked


class Broken(amb.Attack):
    """An attack with a mistake in it."""

    name = "broken"

    def apply(self, model, ctx):
        return model.nothing


class Interrupted(amb.Attack):
    """Ctrl-C while it runs, as long as a file is there."""

    name = "interrupted"

    def apply(self, model, ctx):
        if Path("interrupt").exists():
            raise KeyboardInterrupt
        return Faint(sigma=0.01).apply(model, ctx)


class LaterSuite(ToySuite):
    """The toy suite under a name that no plugin registers."""

    name = "later"


def run(*attacks: Any, **asked: Any) -> amb.Results:
    options = {"method": ToyMethod(), "suite": "toy", "output_dir": OUTPUT, "quiet": True, **asked}
    return amb.run(attacks=list(attacks), **options)


@pytest.fixture
def results(manager) -> amb.Results:
    return run("prune40", Faint())


def test_a_run_takes_names_and_components(results: amb.Results) -> None:
    assert [cell.suspect for cell in results.cells] == ["toy/other", "unmarked owner", "unattacked", "prune40", "faint"]
    assert results.succeeded
    assert results.failed == []
    assert results.folder.parent == Path(OUTPUT) / "runs"
    assert (results.folder / "run.json").is_file()
    assert results.verdict("unattacked").detection_rate == 1
    assert results.verdict("faint").claim in (True, False)


def test_the_frame_has_a_typed_row_for_each_cell(results: amb.Results) -> None:
    frame = results.to_frame()
    assert list(frame["suspect"]) == [cell.suspect for cell in results.cells]
    kinds = {name: str(frame[name].dtype) for name in ("suspect", "claim", "seed", "detection_rate", "utility_knn")}
    assert kinds == {
        "suspect": "string",
        "claim": "boolean",
        "seed": "Int64",
        "detection_rate": "float64",
        "utility_knn": "float64",
    }
    row = frame[frame["suspect"] == "prune40"].iloc[0]
    verdict = results.verdict("prune40")
    assert (row["detection_rate_low"], row["detection_rate_high"]) == verdict.interval
    assert row["p_calibrated"] == verdict.p_values["calibrated"]
    skipped = frame[frame["suspect"] == "unmarked owner"].iloc[0]
    assert skipped["status"] == "skipped"
    assert frame["claim"].isna().sum() == frame["detection_rate"].isna().sum() == 1


def test_a_second_run_reads_and_load_results_finds_it(results: amb.Results, manager) -> None:
    again = run("prune40", Faint())
    assert all(cell.cached for cell in again.judged)
    assert again.verdicts == results.verdicts
    assert amb.load_results(OUTPUT).verdicts == results.verdicts
    run_id = str(results.document["run"]["id"])
    assert len(amb.load_results(OUTPUT, runs=[run_id]).cells) == 5
    with pytest.raises(amb.BadParamsError):
        amb.load_results(OUTPUT, runs=["no-such-run"])
    with pytest.raises(amb.MissingError, match="nowhere"):
        amb.load_results("nowhere")


def test_a_verdict_is_one_or_an_error_that_says_which_there_are(manager) -> None:
    both = amb.sweep(
        amb.Sweep("two", (LaterSuite(),), (ToyMethod(),), ("prune40",), (0, 1)), output_dir=OUTPUT, quiet=True
    )
    with pytest.raises(
        amb.BadParamsError, match="There are 2 verdicts on 'prune40'. Say which: method='toy', seed=0; "
    ):
        both.verdict("prune40")
    assert both.verdict("prune40", seed=1) == both.verdicts["toy", "prune40", 1]
    with pytest.raises(amb.BadParamsError, match="no verdict on 'prune41' here. Judged suspects: toy/other"):
        both.verdict("prune41")


def test_tables_and_figures_show_themselves(results: amb.Results, tmp_path: Path) -> None:
    assert "prune40" in str(results)
    assert "<caption>toy · toy/owner · seed 0</caption>" in results._repr_html_()
    (summary,) = results.table()
    assert summary.title.startswith("5 cells of toy")
    frame = results.table("suspects").to_frame()
    assert {"AUC", "AUC low", "AUC high"} <= set(frame.columns)
    drawing = results.figure("roc")
    assert drawing._repr_png_().startswith(b"\x89PNG")
    assert drawing.save("roc.svg").read_text().startswith("<?xml")
    with pytest.raises(amb.UnknownNameError):
        results.table("nothing")
    with pytest.raises(amb.UnknownNameError):
        results.figure("nothing")


def test_what_fails_costs_its_own_cell(manager) -> None:
    half = run("prune40", Broken())
    assert not half.succeeded
    assert [(cell.suspect, cell.status) for cell in half.failed] == [("broken", "failed")]
    assert "'VisionModel' object has no attribute 'nothing'" in half.failed[0].reason
    assert "tracebacks" in half.failed[0].reason
    assert half.verdict("prune40") == run("prune40").verdict("prune40")


def test_an_interrupted_run_goes_on_where_it_was(manager) -> None:
    Path("interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        run("prune40", Interrupted())
    assert [cell.suspect for cell in amb.load_results(OUTPUT).judged] == ["toy/other", "unattacked", "prune40"]
    Path("interrupt").unlink()
    after = run("prune40", Interrupted())
    assert {cell.suspect: cell.cached for cell in after.judged} == {
        "toy/other": True,
        "unattacked": True,
        "prune40": True,
        "interrupted": False,
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"method": []}, "No method was given"),
        ({"method": ToyMethod}, "ToyMethod'> was given as method, .*: write its name with"),
        ({"method": 3}, "3 was given as method"),
        ({"method": ["ipguard", None]}, "None was given as method"),
        ({"attacks": [["prune40"]]}, "'prune40'. was given as attack"),
        ({"attacks": ToyMethod()}, "was given as attack"),
        ({"suite": ToySuite}, "was given as suite, .*: write its name with"),
        ({"method": "ipgard"}, "No method is called 'ipgard'. Did you mean ipguard"),
        ({"params": {"m": 3}}, "has no parameter 'm'"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
    ids=str,
)
def test_a_request_that_is_wrong_is_one_line(manager, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(amb.UsageError, match=said) as caught:
        amb.run(**{"method": ToyMethod(), "suite": "toy", "output_dir": OUTPUT, **wrong})
    assert "\n" not in str(caught.value)
    assert not Path(OUTPUT).exists()


def test_parameters_reach_a_component_of_ones_own(manager) -> None:
    (cell,) = [cell for cell in run(params={"n": 8}).judged if cell.suspect == "unattacked"]
    assert (cell.method, cell.verdict.n_trials) == ("toy:n=8", 8)


GRID = {"name": "grid", "suites": "toy", "methods": ["ipguard"], "attacks": [{"prune": {"amount": [0.2, 0.4]}}]}


def test_a_sweep_is_a_mapping_with_the_keys_of_a_file(manager) -> None:
    chosen = {**GRID, "methods": ["ipguard:n_points=4,max_iterations=20"], "seeds": [0, 1]}
    done = amb.sweep(chosen, only=["seed=1", "attack=prune:amount=0.4"], output_dir=OUTPUT, quiet=True)
    assert {cell.seed for cell in done.cells} == {1}
    assert [cell.suspect for cell in done.cells if cell.kind == "positive"] == ["unattacked", "prune:amount=0.4"]
    assert len(amb.load_results(OUTPUT, sweep="grid").cells) == len(done.cells)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"sweets": 1}, {}, "there is no key 'sweets'"),
        ({"methods": ["ipgard"]}, {}, "No method is called 'ipgard'"),
        ({}, {"jobs": 0}, "1 or more .got 0."),
        ({}, {"only": ["sed=1"]}, "is not KEY=PATTERN"),
    ],
    ids=str,
)
def test_a_sweep_that_is_wrong_is_refused(manager, change: dict, options: dict, said: str) -> None:
    with pytest.raises(amb.UsageError, match=said):
        amb.sweep({**GRID, **change}, output_dir=OUTPUT, **options)
    assert not Path(OUTPUT).exists()


def test_workers_take_what_they_can_import_only(manager) -> None:
    class Local(ToyMethod):
        """A method of a notebook, as it were."""

    with pytest.raises(
        amb.BadParamsError, match="method toy .*Local. is defined where worker processes cannot import it"
    ):
        amb.sweep(amb.Sweep("local", ("toy",), (Local(),), (), (0,)), jobs=2, output_dir=OUTPUT)
    assert not (Path(OUTPUT) / "runs").exists()


def test_what_is_installed_has_names(manager) -> None:
    assert {"ipguard", "activemark"} <= set(amb.list("methods"))
    assert {"toy/owner", "tiny/owner"} <= set(amb.list("models"))
    with pytest.raises(amb.UnknownNameError, match="Did you mean methods"):
        amb.list("method")
    assert amb.get_method("ipguard:n_points=7").n_points == 7
    assert amb.get_suite("toy") == ToySuite()
    assert amb.get_attack("prune40").canonical() == "prune:amount=0.4"
    with pytest.raises(amb.UsageError, match="chain of 2 attacks"):
        amb.get_attack("prune40+prune20")
    assert amb.load_model("toy/owner").digest() == amb.load_model("toy/owner").digest()
    with pytest.raises(amb.UnknownNameError):
        amb.load_model("toy/nobody")


def test_importing_amb_imports_nothing_heavy() -> None:
    code = "import amb, sys; print([name for name in ('torch', 'pandas', 'matplotlib', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
