"""`amb protect`, `amb verify` and `amb judge` as a shell sees them: sentences, exit codes, and what a kill leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import amb
from amb.ownership.commitment import read_commitment
from amb.ownership.evidence import read_evidence
from amb.ownership.key_facts import open_key
from amb.plugin.manager import Manager
from tests.cli.test_commit_command import amb as run
from tests.ownership.protecting import protect_toy, shake, shipped

WEIGHTS = ("--method", "spread-weights:n_messages=8", "--self-test", "none")


@pytest.fixture
def folder(manager: Manager, tmp_path: Path) -> Path:
    folder = protect_toy(manager, tmp_path / "protected")
    amb.save_checkpoint(shake(shipped(folder)), tmp_path / "stolen")
    return folder


@pytest.mark.parametrize(
    "command", [["protect"], ["verify"], ["verify", "read"], ["verify", "ask"], ["verify", "answer"], ["judge"]]
)  # fmt: skip
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0
    assert f"  amb {' '.join(command[:1])}" in done.stdout


def test_protect_prints_the_line_to_publish(manager: Manager, tmp_path: Path) -> None:
    done = run("protect", "toy/owner", *WEIGHTS, "-o", "protected")
    assert done.returncode == 0, done.stderr
    digest = read_commitment(tmp_path / "protected" / "commitment.json").digest
    assert done.stdout == f"sha256:{digest}\n"
    assert "embedded images serve" in done.stderr
    again = run("protect", "toy/owner", *WEIGHTS, "-o", "protected")
    assert (again.returncode, again.stdout) == (2, "")
    assert "exists already" in again.stderr


def test_dry_run_says_what_it_takes_and_writes_nothing(manager: Manager, tmp_path: Path) -> None:
    done = run("protect", "toy/owner", "--method", "spread-features", "-o", "protected", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["embedding", "memory", "disk"]
    assert list(tmp_path.iterdir()) == []


def test_a_sealed_key_opens_with_its_passphrase_alone(manager: Manager, tmp_path: Path) -> None:
    for name, text in (("right", "open sesame"), ("wrong", "open barley")):
        (tmp_path / name).write_text(text)
    with (tmp_path / "right").open() as right:
        done = run("protect", "toy/owner", *WEIGHTS, "-o", "protected", "--passphrase-fd", str(right.fileno()))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "protected" / "key" / "key.safetensors").exists()
    for name, code in (("right", 0), ("wrong", 1)):
        with (tmp_path / name).open() as given:
            asked = ("verify", "protected/model", "--key", "protected/key", "--passphrase-fd", str(given.fileno()))
            done = run(*asked)
        assert done.returncode == code, done.stderr
    assert "does not open" in done.stderr


def test_verify_answers_in_one_sentence_and_by_its_exit_code(folder: Path) -> None:
    done = run("verify", "stolen", "--key", "protected/key")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CLAIM: stolen descends from the marked release (p = ")
    done = run("verify", "stolen", "toy/owner", "--key", "protected/key", "--format", "json")
    assert done.returncode == 1
    assert [each["claim"] for each in json.loads(done.stdout)["findings"]] == [True, False]


def test_several_keys_share_the_error_rate(manager: Manager, folder: Path, tmp_path: Path) -> None:
    protect_toy(manager, tmp_path / "another")
    done = run("verify", "stolen", "--key", "protected/key", "--key", "another/key")
    assert done.returncode == 0, "claimed by one of the keys"
    mine, theirs, *_ = done.stdout.splitlines()
    assert mine.startswith("CLAIM: stolen descends from the marked release (key protected/key, p = ")
    assert theirs.startswith("NO CLAIM on stolen (key another/key, p = ")
    assert "after correction for 2 readings" in mine
    done = run("verify", "stolen", "--key", "protected/key", "--key", "another/key", "--format", "json")
    first, second = json.loads(done.stdout)["findings"]
    assert (first["key"], second["key"]) == ("protected/key", "another/key")
    assert first["corrected_p_value"] == 2 * first["p_value"]
    assert run("verify", "stolen", "--key", "protected/key", "--key", "another/key", "-o", "e.zip").returncode == 2


def test_verify_says_what_is_missing_or_wrong(folder: Path, tmp_path: Path) -> None:
    for words, code, text in (
        (("verify", "nobody", "--key", "protected/key"), 3, "There is no file nobody, and no model of that name"),
        (("verify", "stolen", "--key", "nowhere"), 3, "no key folder nowhere"),
        (
            ("verify", "stolen", "--key", "protected/key", "--unmarked", "toy/other"),
            2,
            "not the unmarked model of this key",
        ),
        (("verify", "stolen", "toy/owner", "--key", "protected/key", "-o", "e.zip"), 2, "one suspect"),
        (("verify", "ask", "--key", "protected/key", "-o", "questions"), 2, "amb verify SUSPECT"),
        (("verify",), 2, "SUSPECT"),
    ):
        done = run(*words)
        assert done.returncode == code, (words, done.stderr)
        assert text in done.stderr
        assert done.stderr.count("\n") <= 1


def test_evidence_goes_to_a_judge(manager: Manager, folder: Path, tmp_path: Path) -> None:
    commitment = ("--commitment", "protected/commitment.json")
    run("identity", "new", "--folder", "id")
    done = run(
        "verify", "stolen", "--key", "protected/key", *commitment, "--identity", "id", "--open-key", "-o", "e.zip"
    )
    assert "THE KEY IS IN IT" in done.stderr
    done = run("judge", "e.zip", "--suspect", "stolen", "--unmarked", "toy/owner", "--signer", "id")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("The claim stands at level 1e-06. On trust: ")
    assert "REFUSED" not in done.stdout
    done = run("judge", "e.zip", "--suspect", "toy/other", "--format", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["outcome"] == "refused"
    assert run("judge", "stolen.json").returncode == 2
    protect_toy(manager, tmp_path / "another")
    wrong = run("verify", "stolen", "--key", "another/key", *commitment)
    assert (wrong.returncode, "not the one that protected/commitment.json commits to" in wrong.stderr) == (2, True)
    secret = open_key(folder / "key", str).key.tensors["secret"].tobytes()
    closed = run("verify", "stolen", "--key", "protected/key", "-o", "closed.zip")
    assert closed.returncode == 0
    done = run("judge", "closed.zip", "--suspect", "stolen")
    assert (done.returncode, done.stdout.splitlines()[-1][:11]) == (1, "NOT DECIDED")
    assert not any(secret in data for data in read_evidence(tmp_path / "closed.zip").members.values())


def test_a_killed_protection_goes_on(tmp_path: Path) -> None:
    """kill -9 behind the embedding: nothing under the final name, and the second time the same key."""
    words = [sys.executable, "-m", "amb", "protect", "tiny/owner", *WEIGHTS, "-o", "protected", "-q"]
    first = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    embedded, limit = tmp_path / "protected.partial" / "steps" / "embed", time.monotonic() + 120
    while not (found := list(embedded.glob("[!.]*/key.safetensors"))) and time.monotonic() < limit:
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    key = amb.Key.load(found[0]).full_digest
    assert not (tmp_path / "protected").exists()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert open_key(tmp_path / "protected" / "key", str).key.full_digest == key
    assert not (tmp_path / "protected.partial").exists()
