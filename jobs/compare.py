"""Several evaluations of the same windows in one table and one set of curves, baselines beside.

    python jobs/compare.py --evaluations reports/a reports/b --report comparison.html
    python jobs/compare.py --evaluations reports/a reports/b --csv comparison.csv

Reads what ``jobs/evaluate.py`` wrote, and refuses scores of other windows, stores or conventions.
Differences are those of pairs, with intervals from the days that both were scored on. Published
scores (jobs/forecasts/comparison/published.yaml) stand in a block of their own where they are of
the same data set, with ours beside only where the conventions are the same. The way through the
code: what may be compared (evaluations.py in jobs/forecasts/comparison), the pairs (pairs.py
there), the table and the CSV (table.py), the published scores (published.py); the page is
jobs/forecasts/reports/comparison_page.py.
"""

from __future__ import annotations

from jobs.command_line import main_guard, parser_class
from pipelines.errors import UsageError


def compare(
    evaluations: list[str],
    protocol: str = "strict",
    report: str | None = None,
    csv: str | None = None,
    published: str = "",
    resamples: int = 1000,
    seed: int = 0,
) -> None:
    """Print the table, write the page and the CSV."""
    from jobs.forecasts.comparison.evaluations import check_comparable, read_evaluations
    from jobs.forecasts.comparison.pairs import read_sums
    from jobs.forecasts.comparison.published import published_scores
    from jobs.forecasts.comparison.table import as_csv, published_lines, table
    from pipelines.storage import places
    from pipelines.storage.writable import check_writable, is_folder

    names = {"report": "comparison.html", "csv": "scores.csv"}
    for option, uri in (("report", report), ("csv", csv)):
        if uri is not None and (uri.endswith("/") or is_folder(uri)):
            raise UsageError(
                f"--{option} is a file",
                where=places.absolute(uri),
                remedy=f"give it a name, such as {names[option]}",
            )
    scored = read_evaluations(evaluations)
    check_comparable(scored, protocol)
    beside = published_scores(published, scored)
    sums = read_sums(scored, resamples, seed)
    for option, uri in (("report", report), ("csv", csv)):
        if uri:
            check_writable(places.absolute(uri).rpartition("/")[0] or "/", option)
    lines = [*table(scored, protocol, sums), *published_lines(beside, scored)]
    if report:
        from jobs.forecasts.reports.comparison_page import comparison_page

        places.write_bytes(report, comparison_page(scored, protocol, sums, beside).encode())
        lines += ["", f"page: {report}"]
    if csv:
        places.write_bytes(csv, as_csv(scored, sums).encode())
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
        "--protocol", default="strict", help="conventions of the table; page and CSV hold all"
    )
    parser.add_argument("--report", help="URI of a page to write: one HTML file that loads nothing")
    parser.add_argument("--csv", help="URI of a file to write with every score and difference")
    parser.add_argument(
        "--published",
        default="",
        help="published scores to show apart: moving_mnist, cikm2017, taxibj, weatherbench or "
        "shanghai2020; by default those of the archive, none: none",
    )
    parser.add_argument(
        "--resamples",
        type=int,
        default=1000,
        help="of the days, for intervals, at least 100; 0: no intervals",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resamples")
    compare(**vars(parser.parse_args()))


if __name__ == "__main__":
    main_guard(main)
