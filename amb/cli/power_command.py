"""`amb power`: how many triggers and negatives a claim needs, before anything is run."""

from __future__ import annotations

import click

EPILOG = """
\b
Examples:
  amb power --fpr 1e-3 --confidence 0.95
  amb power --fpr 1e-6 --innocent 0.1 --marked 0.9 --format json

A rate of one trial on innocent models comes from `amb calibrate`; without one, coin flips stand in: --n-bits and --tau.
"""

_OPEN = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command(name="power", epilog=EPILOG)
@click.option("--fpr", type=_OPEN, required=True, help="False positive rate to claim, over models.")
@click.option(
    "--confidence", type=_OPEN, default=0.95, show_default=True, help="With which to claim it, and to detect."
)
@click.option("--n-bits", type=click.IntRange(1, 4096), default=32, show_default=True, help="Symbols of a trial.")
@click.option(
    "--tau", type=click.IntRange(0), default=5, show_default=True, help="Most wrong symbols of a detected trial."
)
@click.option(
    "--innocent", type=_OPEN, help="Rate at which a trial is detected on innocent models.  [default: coin flips]"
)
@click.option(
    "--marked", type=_OPEN, default=0.9, show_default=True, help="Rate at which it is detected on the stolen model."
)
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(
    fpr: float, confidence: float, n_bits: int, tau: int, innocent: float | None, marked: float, format_: str
) -> None:
    """Say how many negatives and triggers a claim at a false positive rate needs."""
    from amb.evaluation.calibration import power
    from amb.evaluation.rates import trial_fpr

    rate = float(trial_fpr(n_bits, tau)) if innocent is None else innocent
    needs = power(fpr, confidence, rate, marked)
    if format_ == "json":
        import json

        asked = {"fpr": fpr, "confidence": confidence, "innocent": rate, "marked": marked}
        click.echo(json.dumps({**asked, **needs._asdict()}, indent=1))
        return
    origin = f"coin flips, {n_bits} symbols, tau = {tau}" if innocent is None else "as given"
    click.echo(f"To claim a false positive rate of {fpr:g} with {confidence:.1%} confidence:")
    click.echo(
        f"  negatives  {needs.n_negatives:>8,}  independent ones, none of which fires: {1 - confidence:.3g} bounds (1 - fpr)^n"
    )
    click.echo(
        f"             {needs.n_ranked:>8,}  for a calibrated p-value that can be as small as {fpr:g}: 1 / (n + 1)"
    )
    click.echo(_describe_triggers(needs.n_trials, needs.n_detected))
    click.echo(f"Rates of one trial: {rate:.3g} on innocent models ({origin}), {marked:g} on the stolen one.")
    click.echo("Triggers tell how well R of one suspect is known; how often innocent models fire, only negatives tell.")


def _describe_triggers(n: int | None, k: int | None) -> str:
    if n is None:
        from amb.evaluation.calibration import MOST_TRIALS

        return f"  triggers          –  not even {MOST_TRIALS:,} tell these two rates apart"
    return f"  triggers   {n:>8,}  independent ones, of which {k:,} have to be detected"
