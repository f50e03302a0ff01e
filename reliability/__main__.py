"""The command line: `python -m reliability --help`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from reliability.faults import FAULTS
from reliability.network import Network, enter
from reliability.run import Plan, Result, run

EXAMPLES = """
\b
Examples:
  python -m reliability --fault kill --seconds 15          one run, a minute
  python -m reliability --runs 5                           every fault five times, an hour
  python -m reliability --runs 5 --json > runs.jsonl
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--fault", "faults", multiple=True, type=click.Choice(list(FAULTS)), help="Only this; may be repeated.")
@click.option("--runs", default=1, show_default=True, type=click.IntRange(min=1), help="Of each fault.")
@click.option("--seconds", default=30.0, show_default=True, help="How long puts go on.")
@click.option("--threads", default=32, show_default=True, help="How many threads put.")
@click.option("--shared", default=0, show_default=True, help="How many of them write two to a thread, in two savers.")
@click.option("--window", default=16, show_default=True, help="Of the savers: the smaller, the more often they seal.")
@click.option("--min-cluster-size", default=2, show_default=True, help="Of the server's configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a run instead of a table.")
def main(
    faults: Sequence[str],
    runs: int,
    seconds: float,
    threads: int,
    shared: int,
    window: int,
    min_cluster_size: int,
    as_json: bool,
) -> None:
    """Put into a cluster of three nodes while one of them fails, and read everything back that was acknowledged.

    Takes `asd` on PATH, Linux, and root: the nodes have a network of their own, which is cut for isolation.
    """
    enter()
    plan = Plan(seconds=seconds, threads=threads, shared=shared, window=window, min_cluster_size=min_cluster_size)
    network = Network(3)
    progress = Console(stderr=True)
    table = Table(
        "fault", "run", "acknowledged", "lost", "wrong", "doubled", "longest errors", "longest wait", "stolen"
    )
    try:
        for name in faults or list(FAULTS):
            for number in range(runs):
                result = run(FAULTS[name], number, plan, network, progress.print)
                if as_json:
                    click.echo(json.dumps(asdict(result)))
                else:
                    table.add_row(*row(result))
    finally:
        network.close()
    if not as_json:
        Console().print(table)


def row(result: Result) -> list[str]:
    found = result.found
    lost = found.lost + found.unreadable + found.lost_writes
    return [
        result.fault,
        str(result.run),
        f"{result.acknowledged:,}",
        str(lost),
        str(found.wrong + found.stale),
        str(found.doubled),
        f"{result.longest_trouble:.1f} s",
        f"{result.longest_wait:.1f} s",
        f"{result.stolen:.0%}",
    ]


if __name__ == "__main__":
    main()
