"""The command line: one file per command, each imported only when it is called. Expected errors are printed here."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

COMMANDS = {
    "run": "Embed, attack, extract and decide: the whole protocol for a method and its attacks.",
    "plan": "What a run would download, compute and take, measured on this device.",
    "protect": "Write a marked copy of a model, the key to it, a commitment and a report.",
    "verify": "Read a key on a suspect: is that model mine, and how sure may one be?",
    "judge": "Replay somebody's evidence, step by step, and say what was verified.",
    "commit": "Show, check and date a commitment: what an owner fixes before a dispute.",
    "identity": "Make or show the key that one signs findings with.",
    "sweep": "Run a file of suites x methods x attacks x seeds, resumable.",
    "status": "How far a sweep is, from another shell or machine.",
    "stop": "Ask a sweep that goes on elsewhere to stop.",
    "report": "Tables from what has run: means over seeds, the paper's tables, any format.",
    "leaderboard": "Rank methods per suite and threat model, over several stores and bundles.",
    "compare": "Compare methods on the same suspects, pair by pair, with exact tests.",
    "figure": "Draw detection curves, profile, robustness and utility, ROC or times, for papers.",
    "export": "Write results as one file that others can verify and read; without keys.",
    "import": "Verify a file that `amb export` wrote and put its runs beside one's own.",
    "ui": "Look at what has run in MLflow: its server, opened at the comparison.",
    "store": "Look after finished steps: ls, du, verify, gc, and cp to another machine or a bucket.",
    "track": "Tell MLflow what it has missed: `amb track sync`.",
    "calibrate": "Make negatives by the hundred, and choose thresholds that are judged on others.",
    "power": "How many triggers and negatives a claim needs.",
    "list": "List methods, attacks, suites, models or executors.",
    "show": "Show what a component does, its parameters and presets.",
    "explain": "Say what a word in a table means.",
    "profile": "Print a model's activation profile and its expressive block.",
    "plugins": "List the installed plugins and where they come from.",
    "data": "Say which file serves which role of a suite.",
}

EXAMPLES = """
\b
Examples:
  amb run --method activemark --attack prune40
  amb protect my-model/ --data photos/ -o protected
  amb verify their-model/ --key protected/key
  amb sweep benchmarks/paper/table2.yaml
  amb list attacks
  amb show activemark

Every option has a variable: AMB_RUN_OUTPUT_DIR sets --output-dir of run.
"""


class LazyGroup(click.Group):
    """Lists commands from the table above; imports a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"amb.cli.{cmd_name}_command").command
        _name_variables(command, f"AMB_{cmd_name}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"There is no command '{args[0]}'.{hint} `amb --help` lists them.")
        return super().resolve_command(ctx, args)


def _name_variables(command: click.Command, prefix: str) -> None:
    """A variable for every option: AMB_RUN_OUTPUT_DIR for --output-dir of run, AMB_COMMIT_STAMP_TSA of commit stamp."""
    for option in command.params:
        if isinstance(option, click.Option) and not option.envvar:
            flag = next(name for name in option.opts if name.startswith("--"))
            option.envvar = f"{prefix}{flag[1:]}".replace("-", "_").upper()
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            _name_variables(below, f"{prefix}_{name}")


@click.group(
    cls=LazyGroup,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="activemark-bench", prog_name="amb")
@click.option("--debug", is_flag=True, help="Show the traceback of an expected error too.")
def cli(debug: bool) -> None:
    """Judge ownership verification of vision models: watermarks and fingerprints under attack."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code: 0 fine, 1 a failed cell, 2 usage, 3 something missing, 130 Ctrl-C."""
    arguments = sys.argv[1:] if args is None else args
    _stop_when_hung_up()
    try:
        code = cli.main(arguments, prog_name="amb", standalone_mode=False, obj=list(arguments))
        if sys.stdout is not None:  # closed before we began
            sys.stdout.flush()  # here, where what goes wrong can be said
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        _exit_with(_join_lines(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _exit_with("stopped. What is finished is in the store; the same command goes on from there.", 130)
    except OSError as error:
        _explain_stopped_output(error, debug="--debug" in arguments)
    except Exception as error:  # noqa: BLE001 (the one place where expected errors are printed)
        _print_expected(error, debug="--debug" in arguments)


def _explain_stopped_output(error: OSError, debug: bool) -> None:
    """A reader who has seen enough, as `head` has, ends a command quietly; a full disk in one line."""
    import errno
    import os

    if debug or error.errno not in (errno.EPIPE, errno.ENOSPC):
        raise error
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would be tried again at the end
    if error.errno == errno.EPIPE:
        sys.exit(1)
    _exit_with(f"{error.filename or 'The output'} cannot be written: {error.strerror}. Free space, and ask again.", 1)


def _stop_when_hung_up() -> None:
    """A terminal that goes away, and a polite kill, stop a run as Ctrl-C does; `nohup` is heeded."""
    import signal

    for name in ("SIGHUP", "SIGTERM"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _print_expected(error: Exception, debug: bool) -> None:
    from amb.errors import AmbError

    if debug or not isinstance(error, AmbError):
        raise error
    _exit_with(str(error), error.exit_code)


def _join_lines(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    where = f" `{context.command_path} --help` says how." if context else ""
    return " ".join(error.format_message().split()) + where


def _exit_with(text: str, code: int) -> None:
    from amb.errors import printable

    print("\n".join(printable(line) for line in f"amb: {text}".split("\n")), file=sys.stderr)
    sys.exit(code)
