"""Sweep files: what they spell out, and one clear message for every way of getting one wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amb.errors import BadParamsError, UsageError
from amb.plugin.manager import Manager
from amb.sweeps.definition import Sweep
from amb.sweeps.reader import read_sweep
from amb.sweeps.yaml import MOST_VALUES, read_yaml

GOOD = """
suites: tiny
methods:
  - activemark
  - activemark: {block: [0, 1], n_bits: [8, 16, 32]}
attacks:
  - prune40
  - prune: {amount: [0.1, 0.2]}
  - [{prune: {amount: [0.3, 0.6]}}, finetune-cosine]
seeds: [0, 1]
"""
REGISTRY = Manager().registry


def read(text: str, name: str = "s.yaml") -> Sweep:
    Path(name).write_text(text, encoding="utf-8")
    return read_sweep(Path(name), REGISTRY)


def mistakes(text: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        read(text)
    return str(caught.value).splitlines()[1:]


def test_lists_are_axes_and_their_product_is_spelled_out() -> None:
    sweep = read(GOOD)
    assert sweep.name == "s"
    assert len(sweep.methods) == 1 + 2 * 3
    assert sweep.methods[1:3] == ("activemark:block=0,n_bits=8", "activemark:block=0,n_bits=16")
    assert sweep.attacks == (
        "prune40",
        "prune:amount=0.1",
        "prune:amount=0.2",
        "prune:amount=0.3+finetune-cosine",
        "prune:amount=0.6+finetune-cosine",
    )
    assert sweep.seeds == (0, 1)


def test_counts_the_cells_that_its_plans_have() -> None:
    sweep = read(GOOD)
    plans = sweep.plans(REGISTRY)
    assert [plan.seed for plan in plans] == [0, 1]
    assert sweep.n_cells(REGISTRY) == sum(len(plan.cells()) for plan in plans) == 7 * (6 + 5 + 1 + 5) * 2


def test_a_file_includes_another_and_its_own_keys_win() -> None:
    Path("parts").mkdir()
    Path("parts/base.yaml").write_text("suites: tiny\nmethods: activemark\nseeds: [0, 1, 2]\n")
    sweep = read("include: parts/base.yaml\nseeds: 7\nname: mine\n")
    assert (sweep.name, sweep.seeds, sweep.methods) == ("mine", (7,), ("activemark",))


def test_limit_takes_the_first_of_everything_but_attacks() -> None:
    limited = read(GOOD).limited(1)
    assert (limited.methods, limited.seeds) == (("activemark",), (0,))
    assert len(limited.attacks) == 5


def test_only_keeps_what_matches() -> None:
    kept = read(GOOD).only(["method=*n_bits=8", "attack=prune40", "attack=*cosine", "seed=1"])
    assert kept.methods == ("activemark:block=0,n_bits=8", "activemark:block=1,n_bits=8")
    assert len(kept.attacks) == 3
    assert kept.seeds == (1,)
    with pytest.raises(BadParamsError, match="attack=zip matches nothing in sweep s. It has: prune40, "):
        read(GOOD).only(["attack=zip"])
    for wrong in ("colour=red", "seed", "seed="):
        with pytest.raises(BadParamsError, match="is not KEY=PATTERN. Keys: suite, method, attack, seed"):
            read(GOOD).only([wrong])


BASE = "suites: tiny\nmethods: activemark\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (BASE + "seedz: 1\n", 3, "there is no key 'seedz'. Did you mean seeds?"),
        (BASE + "seeds: [0, -1]\n", 3, "a seed is a whole number, 0 or more, not -1"),
        (BASE + "seeds: yes\n", 3, "not true"),
        (BASE + "seeds: 0.5\n", 3, "not 0.5"),
        (BASE + "seeds:\n- 3\n- 3\n", 5, "seeds gives 3 again, after line 4"),
        (BASE + "seeds: []\n", 3, "seeds is empty"),
        (BASE + "seeds: 1\nseeds: 2\n", 4, "'seeds' stands here again, after line 3"),
        (BASE + "attacks:\n", 3, "attacks is empty"),
        (BASE + "attacks:\n- prun40\n", 4, "No attack is called 'prun40'. Did you mean prune40"),
        (BASE + "attacks:\n- prune40\n- prune: {amount: 0.4}\n", 5, "prune:amount=0.4 again: it is prune40 of line 4"),
        (BASE + "attacks:\n- prune:\n    amount:\n    - 0.2\n    - 1.5\n", 7, "amount must be less than 1"),
        (BASE + "attacks:\n- prune: {amount: []}\n", 4, "axis amount is empty"),
        (BASE + "attacks:\n- prune: {amount: [0.1, 0.1]}\n", 4, "axis amount gives 0.1 again"),
        (BASE + "attacks:\n- prune: {amount: {a: 1}}\n", 4, "axis amount takes plain values, not a mapping"),
        (BASE + "attacks:\n- prune: 0.4\n", 4, "prune takes {parameter: value or list}, not 0.4"),
        (BASE + "attacks:\n- {prune: {amount: 0.4}, none: {}}\n", 4, "an entry of attacks is a spec such as"),
        (BASE + "attacks:\n- 7\n", 4, "not 7"),
        (BASE + "tau: -1\n", 3, "tau is a whole number, 0 or more, not -1"),
        (BASE + "tau: many\n", 3, "not many"),
        (BASE + "alpha: 2\n", 3, "alpha is a number between 0 and 1, not 2"),
        (BASE + "name: ../../etc\n", 3, "name is 1 to 64 letters"),
        (BASE + "model: tiny/nobody-loads\nname: [a]\n", 4, "name is 1 to 64 letters"),
        (BASE + "model: nope/x\n", 3, "No model is called 'nope/x'"),
        (BASE + "attacks:\n- !!python/object/apply:os.system ['touch hacked']\n", 4, "the tag !!python/object/apply"),
        (BASE + "seeds: !!python/name:os.system\n", 3, "is refused: only plain values are read"),
        (BASE + "include: nothing.yaml\n", 3, "include 'nothing.yaml' does not exist"),
        (BASE + "include: ../../../../etc/passwd\n", 3, "lies outside"),
        (BASE + "include: s.yaml\n", 3, "include goes in a circle: s.yaml -> s.yaml"),
        (BASE + "include: [3]\n", 3, "include names a file"),
        (BASE + 'include: "a\\0b"\n', 3, "is no file's name"),
        (BASE + f"include: {'x' * 300}.yaml\n", 3, "is no file's name"),
        (BASE + "seeds: !!bool foo\n", 3, "'foo' cannot be read as !!bool"),
        (BASE + "seeds: !!int ''\n", 3, "cannot be read as !!int"),
        (BASE + "attacks:\n- prune: {scope: 'layer,amount=0.9', amount: 0.1}\n", 4, "has a space or one of : = , +"),
        ('suites: tiny\nmethods: "\\e]0;owned\\a\\nforged:1: x"\n', 2, "\\x1b]0;owned\\x07\\nforged"),
        ("suites: tiny\n", 1, "'methods' is missing: there is nothing to run"),
        ("methods: activemark\nsuites: tinny\n", 2, "No suite is called 'tinny'. Did you mean tiny?"),
        ("- a\n- b\n", 1, "should hold `key: value` lines"),
        ("suites: [tiny\n", 2, "is not YAML"),
        ("a: &a [*a]\n", 1, "an alias stands inside what it refers to"),
        ("[" * 5000, 1, "is nested too deeply"),
        ("a: \x00", 1, "is not YAML"),
    ],
)
def test_says_what_is_wrong_and_where(text: str, line: int, says: str) -> None:
    found = mistakes(text)
    assert any(each.startswith(f"s.yaml:{line}: ") and says in each for each in found), found
    assert not Path("hacked").exists()


def test_reports_every_mistake_at_once_in_the_order_of_lines() -> None:
    found = mistakes("suites: tinny\nmethods: [activemrk, 5]\nattacks: [prun40]\nseeds: -1\nalpha: 3\n")
    assert [each.split(":")[1] for each in found] == ["1", "2", "2", "3", "4", "5"]


def test_a_circle_over_two_files_names_both() -> None:
    Path("b.yaml").write_text("include: s.yaml\n")
    (found,) = mistakes("include: b.yaml\n" + BASE)
    assert "b.yaml:1" in found
    assert "s.yaml -> b.yaml -> s.yaml" in found


def test_aliases_that_multiply_are_counted_not_unfolded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (found,) = mistakes("\n".join(lines))
    assert f"more than {MOST_VALUES} values" in found


def test_a_product_that_nobody_means_is_refused_without_spelling_it_out() -> None:
    axis = ", ".join(str(n) for n in range(1, 3001))
    (found,) = mistakes(f"suites: tiny\nmethods:\n- activemark: {{steps: [{axis}], n_bits: [{axis}]}}\nseeds: 1\n")
    assert "asks for 108,000,000 cells" in found


def test_a_product_past_the_machines_integers_is_refused_too() -> None:
    link = f"{{prune: {{amount: {[n / 500 for n in range(499)]}}}}}"
    (found,) = mistakes(f"suites: tiny\nmethods: activemark\nattacks:\n- [{', '.join([link] * 8)}]\n")
    assert "more than 2,000,000 are refused" in found


def test_includes_that_multiply_are_counted_not_followed() -> None:
    for n in range(25):
        Path(f"f{n}.yaml").write_text(f"include: [f{n + 1}.yaml, f{n + 1}.yaml]\n")
    Path("f25.yaml").write_text("tau: 1\n")
    (found,) = mistakes("include: f0.yaml\n" + BASE)
    assert "is the file after the 64 that are read at most" in found


def test_a_file_whose_name_cannot_name_a_sweep_has_to_give_one() -> None:
    with pytest.raises(UsageError, match="name is 1 to 64 letters"):
        read(BASE, name="=cmd|x.yaml")
    assert read(BASE + "name: fine\n", name="=cmd|x.yaml").name == "fine"


def test_a_file_that_cannot_be_read_is_one_mistake() -> None:
    with pytest.raises(UsageError, match=r"no.yaml:1: cannot be read: No such file"):
        read_sweep(Path("no.yaml"), REGISTRY)
    Path("folder").mkdir()
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_sweep(Path("folder"), REGISTRY)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!#,'\" \n\t0?|>%@`é"), max_size=60))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    path = Path(f"fuzz-{os.getpid()}.yaml")
    path.write_text(text, encoding="utf-8")
    values, problems = read_yaml(path)
    assert isinstance(values, dict)
    assert all(problem.line >= 1 for problem in problems)


def test_only_the_first_mistakes_are_shown_and_the_rest_is_counted() -> None:
    with pytest.raises(UsageError, match="150 mistakes in s.yaml") as caught:
        read(BASE + "attacks:\n" + "".join(f"- prunx{n}\n" for n in range(150)))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 100 + 1
    assert lines[-1] == "... and 50 more."
    assert "Did you mean" in lines[1]
