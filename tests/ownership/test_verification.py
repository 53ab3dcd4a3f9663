"""Verifying, showing evidence, and judging it: what stands, what is taken on trust, what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import amb
from amb.errors import AmbError, UsageError
from amb.evaluation.claims import correct_holm
from amb.ownership.answers import AnsweredView, play_back
from amb.ownership.commitment import read_commitment
from amb.ownership.evidence import read_evidence, write_evidence
from amb.ownership.identity import load_identity, load_public, new_identity
from amb.ownership.judge import Bench, Judgement, judge
from amb.ownership.key_facts import OpenedKey, open_key
from amb.ownership.questions import read_answers, write_questions
from amb.ownership.verification import (
    Finding,
    Suspect,
    correct_together,
    describe_finding,
    open_suspect,
    say_finding,
    verify,
)
from amb.plugin.manager import Manager
from amb.testing.toy import ToySplit, toy_model
from tests.conftest import QUICK
from tests.ownership.protecting import protect_toy, shake, shipped

FEATURES = (
    "spread-features:n_messages=1,n_bits=32,n_components=4,steps=150,batch=16,n_images=96,n_triggers=96,strength=0.5"
)


class Case:
    """A protected toy model, and what stands around it."""

    def __init__(self, manager: Manager, folder: Path, **asked: Any) -> None:
        self.folder = protect_toy(manager, folder, **asked)
        self.opened = open_key(self.folder / "key", str)
        self.method = manager.registry.method(self.opened.key.method)
        self.unmarked = amb.load_model("toy/owner")
        self.stolen = shake(shipped(self.folder))

    def suspect(self, model: amb.VisionModel, name: str = "them") -> Suspect:
        return open_suspect(name, model, self.method)

    def verify(self, *models: amb.VisionModel, **asked: Any) -> list[Finding]:
        suspects = [self.suspect(each, f"suspect {at}") for at, each in enumerate(models)]
        return verify(self.opened, self.method, suspects, unmarked=lambda: self.unmarked, **asked)

    def evidence(self, path: Path, *, with_key: bool = True, signer: Any = None) -> Path:
        (finding,) = self.verify(self.stolen)
        commitment = read_commitment(self.folder / "commitment.json")
        write_evidence(
            path, finding, self.opened, answers=None, commitment=commitment, receipts={}, signer=signer, with_key=with_key
        )  # fmt: skip
        return path

    def judge(self, path: Path, **asked: Any) -> Judgement:
        bench = {
            "suspect": self.suspect(self.stolen), "opened": self.opened, "unmarked": lambda: self.unmarked, **asked
        }  # fmt: skip
        return judge(read_evidence(path), self.method, Bench(**bench))


@pytest.fixture
def case(manager: Manager, tmp_path: Path) -> Case:
    return Case(manager, tmp_path / "protected")


def statuses(judgement: Judgement) -> Mapping[str, str]:
    """The worst status of each step, by what it is about."""
    order = ("verified", "trusted", "refused")
    found: dict[str, str] = {}
    for step in judgement.steps:
        found[step.what] = max(step.status, found.get(step.what, "verified"), key=order.index)
    return found


def test_the_marked_and_stolen_are_claimed_and_nobody_else(case: Case, manager: Manager, tmp_path: Path) -> None:
    another = shipped(protect_toy(manager, tmp_path / "another owner"))
    innocents = [case.unmarked, shake(case.unmarked), toy_model(seed=2), another]
    assert [each.claim for each in case.verify(shipped(case.folder), case.stolen)] == [True, True]
    assert not any(each.claim for each in case.verify(*innocents))


def test_few_innocent_models_support_no_claim_at_one_in_a_million(manager: Manager, tmp_path: Path) -> None:
    """A method without an exact null is ranked among sources; three of them support 1 in 4, and that is what it takes to ask for."""
    boxed = Case(manager, tmp_path / "protected", method=QUICK)
    copy = shipped(boxed.folder)
    (alone,) = boxed.verify(copy)
    assert not alone.claim
    assert "--negative REF" in say_finding(alone)
    negatives = [boxed.suspect(toy_model(seed=seed), f"other {seed}") for seed in (2, 3, 4)]
    (found,) = boxed.verify(copy, negatives=negatives)
    assert (found.corrected_p, found.claim) == (0.25, False)
    assert (
        "3 sources of innocent models, as they were named, which support 0.25 at best; a claim takes 1e-06 or less"
        in say_finding(found)
    )
    (asked,) = boxed.verify(copy, negatives=negatives, level=0.25)
    assert asked.claim
    assert "shares its lineage" in say_finding(asked)
    again = boxed.suspect(toy_model(seed=2), "the same under another name")
    assert len(boxed.verify(copy, negatives=[*negatives, again])[0].sources) == 3, "a copy counts once"
    relatives = [replace(each, source="one") for each in negatives]
    assert boxed.verify(copy, negatives=relatives)[0].sources == ("one",)


def test_the_answer_is_one_sentence(case: Case) -> None:
    (claimed,), (silent,) = case.verify(case.stolen), case.verify(toy_model(seed=2))
    assert say_finding(claimed).startswith("CLAIM: suspect 0 descends from the marked release (p = ")
    assert say_finding(silent).startswith("NO CLAIM on suspect 0 (p = ")


def test_several_suspects_share_the_error_rate() -> None:
    """Against the definition: the k-th smallest of n times n - k + 1, monotone (statsmodels' `holm` gives the same)."""
    assert correct_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct_holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_several_keys_share_it_too(case: Case, manager: Manager, tmp_path: Path) -> None:
    other = Case(manager, tmp_path / "other")
    models = (case.stolen, toy_model(seed=2))
    mine, theirs = case.verify(*models), other.verify(*models)
    found = correct_together({"mine": mine, "theirs": theirs})
    assert [each.claim for each in found] == [True, False, False, False]
    assert [each.corrected_p for each in found] == correct_holm([each.test.p_value for each in [*mine, *theirs]])
    assert found[0].corrected_p == pytest.approx(4 * mine[0].test.p_value)
    assert "(key mine, p = " in say_finding(found[0])
    assert "after correction for 4 readings" in say_finding(found[0])


def test_a_key_that_anybody_can_make_is_refused(case: Case) -> None:
    public = replace(case.opened, key=replace(case.opened.key, reproducible=True))
    with pytest.raises(UsageError, match="anybody can make it"):
        verify(public, case.method, [case.suspect(case.stolen)], unmarked=lambda: case.unmarked)


def test_evidence_shows_no_secret_unless_the_key_is_opened(case: Case, tmp_path: Path) -> None:
    secret, salt = case.opened.key.tensors["secret"].tobytes(), case.opened.salt
    closed = read_evidence(case.evidence(tmp_path / "closed.zip", with_key=False))
    forms = (secret, secret.hex().encode(), salt, salt.hex().encode())
    assert not any(form in data for form in forms for data in closed.members.values())
    opened = read_evidence(case.evidence(tmp_path / "opened.zip"))
    assert opened.members["key/key.safetensors"] == case.opened.data


def test_a_judge_replays_all_of_it(case: Case, tmp_path: Path) -> None:
    new_identity(tmp_path / "id")
    signer = load_identity(tmp_path / "id", str)
    path = case.evidence(tmp_path / "evidence.zip", signer=signer)
    signers = [load_public(tmp_path / "id")]
    date = datetime(2030, 1, 1, tzinfo=UTC)
    negatives = [case.suspect(toy_model(seed=2), "their own")]
    judgement = case.judge(path, signers=signers, suspect_date=date, n_keys=5, negatives=negatives)
    assert judgement.outcome == "stands"
    found = statuses(judgement)
    assert {what for what, status in found.items() if status != "verified"} == {
        "it is older than the suspect",
        "on images of your own",
    }


def test_what_is_not_given_is_taken_on_trust(case: Case, tmp_path: Path) -> None:
    path = case.evidence(tmp_path / "evidence.zip", with_key=False)
    judgement = judge(read_evidence(path), case.method, Bench())
    assert judgement.outcome == "not decided"
    trusted = {what for what, status in statuses(judgement).items() if status == "trusted"}
    assert {"the suspect", "who says so", "the key follows from its secret", "the reading"} <= trusted


def changes(path: Path) -> Iterator[tuple[str, bytes]]:
    """The file with one byte of one member changed, its checksum made to fit."""
    members = read_evidence(path).members
    for name in members:
        changed = {**members, name: bytes([members[name][0] ^ 1]) + members[name][1:]}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for each, data in changed.items():
                file.writestr(each, data)
        yield name, buffer.getvalue()


def test_one_changed_byte_in_any_member_is_refused(case: Case, tmp_path: Path) -> None:
    path = case.evidence(tmp_path / "evidence.zip")
    seen = set()
    for name, data in changes(path):
        (tmp_path / "changed.zip").write_bytes(data)
        try:
            assert case.judge(tmp_path / "changed.zip").outcome == "refused", name
        except AmbError as error:
            assert str(error).count("\n") == 0
        seen.add(name)
    assert {"finding.json", "commitment.json", "key/key.safetensors", "key/salt", "statement.json"} <= seen


def test_one_changed_byte_of_the_file_is_refused_or_changes_nothing(case: Case, tmp_path: Path) -> None:
    path = case.evidence(tmp_path / "evidence.zip")
    data, members = path.read_bytes(), read_evidence(path).members
    for at in range(0, len(data), len(data) // 60):
        (tmp_path / "changed.zip").write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        try:
            found = read_evidence(tmp_path / "changed.zip")
            assert found.members == members or judge(found, case.method, Bench(opened=case.opened)).outcome == "refused"
        except AmbError as error:
            assert str(error).count("\n") == 0


def test_a_finding_that_was_made_up_decides_nothing(case: Case, tmp_path: Path) -> None:
    """Unsigned evidence without a key that names an innocent model: whole, consistent, and worth nothing."""
    innocent = toy_model(seed=2)
    (finding,) = case.verify(case.stolen)
    made_up = replace(finding, suspect=case.suspect(innocent))
    write_evidence(
        tmp_path / "e.zip", made_up, case.opened, answers=None, commitment=None, receipts={}, signer=None, with_key=False
    )  # fmt: skip
    evidence = read_evidence(tmp_path / "e.zip")
    assert judge(evidence, case.method, Bench(suspect=case.suspect(innocent))).outcome == "not decided"
    assert case.judge(tmp_path / "e.zip", suspect=case.suspect(innocent)).outcome == "refused"


def test_another_suspect_is_refused(case: Case, tmp_path: Path) -> None:
    path = case.evidence(tmp_path / "evidence.zip")
    judgement = case.judge(path, suspect=case.suspect(shake(case.stolen)))
    assert statuses(judgement)["the suspect"] == "refused"


def test_a_commitment_younger_than_the_suspect_is_refused(case: Case, tmp_path: Path) -> None:
    path = case.evidence(tmp_path / "evidence.zip")
    judgement = case.judge(path, suspect_date=datetime(2020, 1, 1, tzinfo=UTC))
    assert statuses(judgement)["it is older than the suspect"] == "refused"


def test_another_key_is_refused(case: Case, manager: Manager, tmp_path: Path) -> None:
    path = case.evidence(tmp_path / "evidence.zip", with_key=False)
    other = Case(manager, tmp_path / "other")
    judgement = case.judge(path, opened=other.opened)
    assert statuses(judgement)["the key is that of the commitment"] == "refused"
    assert statuses(judgement)["the reading"] == "refused"


def test_a_key_made_by_hand_is_refused(case: Case, tmp_path: Path) -> None:
    chosen = replace(case.opened.key, tensors={**case.opened.key.tensors, "carriers": np.ones(4, dtype=np.float32)})
    made = OpenedKey(chosen, case.opened.facts, case.opened.salt, case.opened.data)
    judgement = case.judge(case.evidence(tmp_path / "evidence.zip"), opened=made)
    assert statuses(judgement)["the key follows from its secret"] == "refused"


def test_a_key_that_was_looked_for_among_many_is_refused(case: Case, tmp_path: Path) -> None:
    """Evidence at p just below the level, of a claimant with a million keys."""
    path = case.evidence(tmp_path / "evidence.zip")
    found = read_evidence(path)
    said = {**found.finding, "corrected_p_value": 5e-7}
    judged = judge(
        replace(found, members={**found.members, "finding.json": json.dumps(said).encode()}),
        case.method,
        Bench(n_keys=10**6),
    )
    assert statuses(judged)["how many keys there are"] == "refused"


def say(path: Path, **said: Any) -> Any:
    """An evidence file whose finding says something else."""
    found = read_evidence(path)
    return replace(found, members={**found.members, "finding.json": json.dumps({**found.finding, **said}).encode()})


def test_a_p_that_was_made_up_is_refused_and_supports_no_number_of_keys(case: Case, tmp_path: Path) -> None:
    evidence = say(case.evidence(tmp_path / "evidence.zip"), p_value=1e-300, corrected_p_value=1e-300)
    (finding,) = case.verify(case.stolen)
    n_keys = 2 * int(finding.level / finding.corrected_p) + 2
    bench = {"suspect": case.suspect(case.stolen), "opened": case.opened, "unmarked": lambda: case.unmarked}
    found = statuses(judge(evidence, case.method, Bench(**bench, n_keys=n_keys)))
    assert (found["the reading"], found["how many keys there are"]) == ("refused", "refused")
    unread = statuses(judge(evidence, case.method, Bench(n_keys=n_keys)))
    assert unread["the reading"] == "refused", "p is not what so many right symbols give"
    assert unread["how many keys there are"] == "trusted", "by the claimant's own p"


def test_a_level_that_was_loosened_afterwards_is_refused(case: Case, tmp_path: Path) -> None:
    path = case.evidence(tmp_path / "evidence.zip")
    loose = replace(case.opened, facts=case.opened.facts.model_copy(update={"level": 0.05}))
    assert statuses(judge(say(path, level=0.05), case.method, Bench()))["what was fixed before"] == "refused"
    assert statuses(case.judge(path, opened=loose))["what was fixed before"] == "refused"
    assert statuses(case.judge(path))["what was fixed before"] == "verified"


def test_symbols_that_are_no_fair_coins_prove_nothing_on_other_images(
    boxed: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ToySplit("test").batch(range(96)).images
    path = boxed.evidence(tmp_path / "evidence.zip")
    monkeypatch.setattr(type(boxed.method), "null", "none")
    assert statuses(boxed.judge(path, images=images))["on images of your own"] == "trusted"


def test_a_signature_by_somebody_else_is_refused(case: Case, tmp_path: Path) -> None:
    for name in ("mine", "theirs"):
        new_identity(tmp_path / name)
    path = case.evidence(tmp_path / "evidence.zip", signer=load_identity(tmp_path / "mine", str))
    judgement = case.judge(path, signers=[load_public(tmp_path / "theirs")])
    assert statuses(judgement)["who says so"] == "refused"


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip at all", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_evidence_is_said(case: Case, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "evidence.zip").write_bytes(data)
    with pytest.raises(UsageError, match=r"evidence|statement"):
        case.judge(tmp_path / "evidence.zip")


# Black box


@pytest.fixture
def boxed(manager: Manager, tmp_path: Path) -> Case:
    return Case(manager, tmp_path / "protected", method=FEATURES, level=1e-3)  # 32 bits in a network of 35,000 weights


def test_a_service_is_read_by_its_answers_alone(boxed: Case, tmp_path: Path) -> None:
    """By a function, by files in any order, and by a third party who has nothing but the answers."""

    @torch.no_grad()
    def service(images: np.ndarray) -> np.ndarray:
        return boxed.stolen.features(torch.from_numpy(images)).numpy()

    view = AnsweredView(service, "features")
    (asked,) = verify(boxed.opened, boxed.method, [Suspect("service", None, view)])
    (white,) = verify(boxed.opened, boxed.method, [boxed.suspect(boxed.stolen)])
    assert asked.claim
    assert describe_finding(asked)["reading"] == describe_finding(white)["reading"]

    n = write_questions(boxed.opened, boxed.method, tmp_path / "questions")
    names = sorted(path.name for path in (tmp_path / "questions").glob("*.png"))
    assert n == len(names) == 96 + 24
    from PIL import Image

    pixels = [np.asarray(Image.open(tmp_path / "questions" / name)).transpose(2, 0, 1) for name in names]
    answers = service(np.stack(pixels).astype(np.float32) / 255)
    order = np.random.default_rng(0).permutation(len(names))
    np.savez(tmp_path / "answers.npz", names=np.array(names)[order], features=answers[order])
    text = "\n".join(",".join([names[at], *map(repr, answers[at].tolist())]) for at in order)
    (tmp_path / "answers.csv").write_text(f"name,{','.join('f' * answers.shape[1])}\n{text}\n")
    for file in ("answers.npz", "answers.csv"):
        exchanged = AnsweredView(read_answers(tmp_path / "questions", tmp_path / file), "features")
        (found,) = verify(boxed.opened, boxed.method, [Suspect("service", None, exchanged)])
        assert describe_finding(found)["reading"] == describe_finding(white)["reading"]

    path = tmp_path / "evidence.zip"
    write_evidence(
        path, found, boxed.opened, answers=exchanged.joined(), commitment=None, receipts={}, signer=None, with_key=True
    )  # fmt: skip
    judgement = judge(read_evidence(path), boxed.method, Bench(opened=boxed.opened, unmarked=lambda: boxed.unmarked))
    assert judgement.outcome == "stands"
    assert statuses(judgement)["the reading"] == "verified"


def test_answers_that_are_missing_or_of_another_key_are_said(boxed: Case, manager: Manager, tmp_path: Path) -> None:
    write_questions(boxed.opened, boxed.method, tmp_path / "questions", decoys=0)
    np.savez(tmp_path / "answers.npz", names=np.array(["00000.png"]), features=np.zeros((1, 4)))
    with pytest.raises(UsageError, match="no answer to 00001.png"):
        read_answers(tmp_path / "questions", tmp_path / "answers.npz")
    with pytest.raises(UsageError, match="another key"):
        short = AnsweredView(play_back(np.zeros((3, 4), dtype=np.float32)), "features")
        verify(boxed.opened, boxed.method, [Suspect("short", None, short)])


def test_weights_cannot_be_read_by_answers() -> None:
    with pytest.raises(AmbError, match="shows none"):
        AnsweredView(lambda images: images, "weights")


def test_a_judge_reads_on_images_of_his_own(boxed: Case, tmp_path: Path) -> None:
    images = ToySplit("test").batch(range(96)).images
    suspects = [boxed.suspect(each, name) for name, each in (("stolen", boxed.stolen), ("other", toy_model(seed=2)))]
    found = [
        verify(boxed.opened, boxed.method, [each], unmarked=lambda: boxed.unmarked, images=images)[0]
        for each in suspects
    ]
    assert [each.claim for each in found] == [True, False]
    assert "That holds if whoever chose these images did not have the key." in say_finding(found[0])
    path = boxed.evidence(tmp_path / "evidence.zip")
    judged = boxed.judge(path, images=images)
    assert statuses(judged)["on images of your own"] == "verified"
    assert judged.outcome == "stands"


def test_a_method_that_reads_weights_has_no_images_to_choose(case: Case, tmp_path: Path) -> None:
    images = ToySplit("test").batch(range(8)).images
    judged = case.judge(case.evidence(tmp_path / "evidence.zip"), images=images)
    assert statuses(judged)["on images of your own"] == "trusted"


def test_the_unmarked_model_makes_the_parts_of_a_key_again(boxed: Case) -> None:
    audit = boxed.method.audit_key(boxed.opened.key, boxed.unmarked)
    assert not audit.wrong
    assert not audit.trusted
    foreign = boxed.method.audit_key(boxed.opened.key, toy_model(seed=2))
    assert foreign.wrong
