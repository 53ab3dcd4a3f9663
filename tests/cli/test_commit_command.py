"""`amb commit` and `amb identity` as a shell sees them: one line to publish, exit codes, secrets that nothing shows."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click import ClickException
from click.testing import CliRunner

from amb.cli import cli
from amb.errors import AmbError
from amb.ownership import sealing
from amb.ownership.commitment import read_commitment
from tests.ownership.making import KEY, Authority, make_authority, make_protected, needs_stamps, serve


def amb(*args: str, env: dict[str, str] | None = None) -> SimpleNamespace:
    """Run the command line in this process, which takes no second: exit code, standard output and error."""
    done = CliRunner().invoke(cli, list(args), prog_name="amb", env=env, standalone_mode=False)
    error = done.exception
    if error is None:
        return SimpleNamespace(returncode=done.return_value or 0, stdout=done.stdout, stderr=done.stderr)
    assert isinstance(error, AmbError | ClickException), repr(error)
    text = error.format_message() if isinstance(error, ClickException) else str(error)
    return SimpleNamespace(returncode=error.exit_code, stdout=done.stdout, stderr=f"{done.stderr}{text}")


@pytest.fixture
def commitment(tmp_path: Path) -> Path:
    return make_protected(tmp_path / "protected")


@pytest.mark.parametrize(
    "command", [["commit"], ["identity"], *(["commit", name] for name in ("show", "check", "stamp", "attach")),
                ["identity", "new"], ["identity", "show"]]
)  # fmt: skip
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    done = amb(*command, "--help")
    assert done.returncode == 0
    assert f"\n    amb {' '.join(command)}" in done.stdout


def test_show_begins_with_the_line_to_publish(commitment: Path) -> None:
    done = amb("commit", "show", str(commitment))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"sha256:{read_commitment(commitment).digest}", ""]
    assert {line.split()[0] for line in lines[2:]} >= {
        "created",
        "claim",
        "method",
        "level",
        "key",
        "unmarked",
        "marked",
    }
    shown = json.loads(amb("commit", "show", str(commitment), "--format", "json").stdout)
    assert shown == {"digest": lines[0][7:], "commitment": json.loads(commitment.read_text()), "receipts": []}


def test_check_compares_the_key_and_the_model(commitment: Path) -> None:
    folder = commitment.parent
    asked = ["commit", "check", str(commitment), "--key", str(folder / "key"), "--model", str(folder / "model")]
    done = amb(*asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok", "ok"]
    (folder / "model" / "model.safetensors").write_bytes(b"other weights")
    done = amb(*asked)
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAILED  model: model.safetensors was changed" in done.stdout
    (folder / "key" / "key.safetensors").write_bytes(KEY + b"x")
    done = amb(*asked)
    assert done.returncode == 1
    assert "FAILED  key: " in done.stdout


def test_a_sealed_key_is_opened_by_a_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "LOG_N", 10)
    make_protected(tmp_path / "sealed", "correct horse")
    ask = f"{sys.executable} -m amb commit check sealed/commitment.json --key sealed/key --passphrase-fd 3"
    for passphrase, code in (("correct horse", 0), ("wrong", 1)):
        done = subprocess.run(
            f"{ask} 3<<< '{passphrase}'",
            shell=True,
            executable="/bin/bash",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert done.stderr == "amb: The seal does not open: the passphrase is another, or the file was changed.\n"
    done = subprocess.run(
        ask.removesuffix(" --passphrase-fd 3"),
        shell=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "amb: There is no terminal to type a passphrase at. Give --passphrase-fd N.\n"


def test_a_passphrase_typed_at_a_terminal_is_not_echoed(tmp_path: Path) -> None:
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "amb", "identity", "new", "--seal", "--folder", "id"]
    process = subprocess.Popen(
        command,
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509
    )
    os.close(secondary)
    seen = b""
    for prompt in (b"Passphrase: ", b"Once more: "):
        while prompt not in seen:
            seen += os.read(primary, 1024)
        os.write(primary, b"correct horse\n")
    assert process.wait(60) == 0
    seen += os.read(primary, 4096)
    os.close(primary)
    assert b"correct" not in seen
    assert (tmp_path / "id" / "private.sealed").exists()


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_nothing_that_is_printed_holds_the_key(commitment: Path, tmp_path: Path) -> None:
    folder = commitment.parent
    (tmp_path / "letter.txt").write_text("registered")
    said = [
        amb("commit", "show", str(commitment)),
        amb("commit", "show", str(commitment), "--format", "json"),
        amb("commit", "check", str(commitment), "--key", str(folder / "key")),
        amb("commit", "attach", str(commitment), "letter.txt"),
    ]
    printed = "".join(done.stdout + done.stderr for done in said) + commitment.read_text()
    salt = (folder / "key" / "salt").read_bytes()
    for secret in (KEY, salt):
        assert secret.decode("latin-1")[:16] not in printed
        assert secret.hex()[:16] not in printed


def test_a_receipt_is_attached_shown_and_checked(commitment: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_bytes(b"%PDF")
    done = amb("commit", "attach", str(commitment), "letter.pdf", "--date", "2026-11-27", "--note", "Register 1234")
    assert done.returncode == 0
    assert "commitment.receipts/letter.pdf: attached." in done.stderr
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.stdout)
    assert "letter.pdf, dated 2026-11-27: Register 1234" in amb("commit", "show", str(commitment)).stdout
    done = amb("commit", "check", str(commitment))
    assert (done.returncode, done.stdout) == (
        0,
        "ok      receipt: letter.pdf: unchanged; what it shows, its issuer has to say\n",
    )
    (commitment.parent / "commitment.receipts" / "letter.pdf").write_bytes(b"%PDF-changed")
    done = amb("commit", "check", str(commitment))
    assert done.returncode == 1
    assert "FAILED  receipt: letter.pdf: The receipt letter.pdf was changed" in done.stdout


@needs_stamps
def test_a_commitment_is_stamped_and_the_stamp_verified(commitment: Path, tmp_path: Path) -> None:
    root = make_authority(tmp_path / "tsa")
    with serve(Authority(tmp_path / "tsa")) as url:
        done = amb("commit", "stamp", str(commitment), "--tsa", url, "--tsa-root", str(root))
        assert done.returncode == 0, done.stderr
        assert "its signature was verified" in done.stderr
        again = amb("commit", "stamp", str(commitment), env={"AMB_COMMIT_STAMP_TSA": url})
        assert again.returncode in {0, 2}, again.stderr  # 2: both fell into one second, and have one name
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", done.stdout)
    checked = amb("commit", "check", str(commitment), "--tsa-root", str(root))
    assert checked.returncode == 0
    assert f"stamped at {done.stdout.strip()}, signature verified" in checked.stdout
    assert "its signature was not verified: give --tsa-root" in amb("commit", "check", str(commitment)).stdout
    other = make_authority(tmp_path / "other")
    refused = amb("commit", "check", str(commitment), "--tsa-root", str(other))
    assert refused.returncode == 1
    assert "FAILED" in refused.stdout


def test_an_identity_is_made_shown_and_never_overwritten(tmp_path: Path) -> None:
    settings = {"XDG_CONFIG_HOME": str(tmp_path / "settings")}
    done = amb("identity", "new", env=settings)
    assert done.returncode == 0
    assert "not sealed" in done.stderr
    assert (tmp_path / "settings" / "amb" / "identity" / "private.pem").stat().st_mode & 0o777 == 0o600
    shown = amb("identity", "show", env=settings)
    assert shown.stdout.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert done.stdout.strip() in shown.stderr
    assert json.loads(amb("identity", "show", "--format", "json", env=settings).stdout)["key_id"] == done.stdout.strip()
    private = (tmp_path / "settings" / "amb" / "identity" / "private.pem").read_text().splitlines()[1]
    assert private not in done.stdout + done.stderr + shown.stdout + shown.stderr
    again = amb("identity", "new", "--seal", env=settings)
    assert again.returncode == 2
    assert "holds an identity already" in again.stderr


BAD = {
    "no such file": (["commit", "show", "nowhere.json"], 3, "does not exist"),
    "folder": (["commit", "show", "."], 2, "is a directory"),
    "device": (["commit", "show", "/dev/zero"], 2, "pipe or a device"),
    "damaged": (["commit", "show", "damaged.json"], 2, "no JSON"),
    "nothing to check": (["commit", "check", "protected/commitment.json"], 2, "give --key DIR or --model DIR"),
    "no key": (["commit", "check", "protected/commitment.json", "--key", "nowhere"], 3, "does not exist"),
    "no model": (["commit", "check", "protected/commitment.json", "--model", "nowhere"], 3, "does not exist"),
    "no receipt": (["commit", "attach", "protected/commitment.json", "nowhere.pdf"], 3, "does not exist"),
    "date": (["commit", "attach", "protected/commitment.json", "damaged.json", "--date", "soon"], 2, "date"),
    "authority": (["commit", "stamp", "protected/commitment.json"], 2, "Missing option '--tsa'"),
    "root": (["commit", "check", "protected/commitment.json", "--tsa-root", "damaged.json"], 2, "holds no certificate"),
    "word": (["commit", "publish"], 2, "No such command"),
    "no identity": (["identity", "show", "--folder", "nowhere"], 3, "Make one: amb identity new"),
    "descriptor": (["identity", "new", "--folder", "id", "--passphrase-fd", "999999"], 2, "Bad file descriptor"),
    "no descriptor": (["identity", "new", "--folder", "id", "--passphrase-fd", "x"], 2, "not a valid integer"),
    "read-only": (["identity", "new", "--folder", "/proc/id"], 1, "cannot be written"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_one_line(case: str, commitment: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.json").write_text("{\x1b[2J")
    args, code, message = BAD[case]
    done = amb(*args)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stderr.rstrip("\n").isprintable()
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.json", "protected"]
    assert sorted(path.name for path in commitment.parent.iterdir()) == ["commitment.json", "key", "model"]


def test_the_commands_import_nothing_heavy(commitment: Path) -> None:
    code = (
        "import sys\nfrom amb.cli import main\ntry:\n main(sys.argv[1:])\nexcept SystemExit: print('\\n', *sys.modules)"
    )
    command = [sys.executable, "-c", code, "commit", "check", str(commitment), "--key", str(commitment.parent / "key")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {"torch", "mlflow", "timm", "transformers", "numpy", "pandas"} & set(
        done.stdout.splitlines()[-1].split()
    )
