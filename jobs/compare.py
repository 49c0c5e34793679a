"""Several evaluations of the same windows in one table, the baselines beside.

    python jobs/compare.py --evaluations reports/a reports/b --csv comparison.csv
    python jobs/compare.py --evaluations reports/a --published weatherbench

Reads what ``jobs/evaluate.py`` wrote, and refuses scores of other windows, stores or conventions.
Published scores (jobs/forecasts/published.yaml) stand in a block of their own, with ours beside
only where the conventions are the same. The way through the code: jobs/forecasts/comparison.py.
"""

from __future__ import annotations

from jobs.command_line import parser_class, run
from pipelines.errors import UsageError


def compare(
    evaluations: list[str],
    protocol: str = "strict",
    csv: str | None = None,
    published: str | None = None,
) -> None:
    """Print the table, write the CSV."""
    from jobs.forecasts.comparison import (
        as_csv,
        published_block,
        read_evaluations,
        refuse_incomparable,
        table,
    )
    from pipelines import uri as places
    from pipelines.writable import refuse_unwritable

    if csv and csv.endswith("/"):
        raise UsageError("--csv is a file", where=csv, remedy="give it a name, such as scores.csv")
    scored = read_evaluations(evaluations)
    refuse_incomparable(scored, protocol)
    lines = table(scored, protocol)
    if published:
        lines += published_block(published, scored)
    if csv:
        refuse_unwritable(places.absolute(csv).rpartition("/")[0], "csv")
        places.write_bytes(csv, as_csv(scored).encode())
        lines += ["", f"all scores: {csv}"]
    print("\n".join(lines))


def main() -> None:
    """Parse and compare."""
    parser = parser_class()(description=__doc__)
    parser.add_argument(
        "--evaluations",
        nargs="+",
        required=True,
        help="files that evaluate.py wrote (scores.json), or their folders",
    )
    parser.add_argument(
        "--protocol", default="strict", help="conventions of the table; the CSV holds all"
    )
    parser.add_argument("--csv", help="URI of a file to write with every score")
    parser.add_argument(
        "--published",
        help="published scores to show apart: moving_mnist, cikm2017, taxibj, weatherbench or "
        "shanghai2020",
    )
    compare(**vars(parser.parse_args()))


if __name__ == "__main__":
    run(main)
