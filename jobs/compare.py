"""Compare several evaluations of the same windows: one table, one page of curves, and a CSV.

    python jobs/compare.py --evaluations reports/a reports/b --report comparison.html
    python jobs/compare.py --evaluations reports/a reports/b --csv comparison.csv

Reads the scores that `jobs/evaluate.py` wrote. Scores of other windows, of another store or of
other conventions are an error. The differences between every two models have intervals from the
days that both models were scored on. Published scores are shown in a block of their own, if they
were measured on the same data set. Our scores stand beside them if the conventions are the same
too. The way through the code, in jobs/forecasts: what may be compared (comparison/evaluations.py),
the pairs (comparison/pairs.py), the table and the CSV (comparison/table.py), published scores
(comparison/published.py), the page (reports/comparison_page.py).
"""

from __future__ import annotations

from csv import DictReader
from dataclasses import dataclass, field

from jobs.command_line import SEVERAL, main_guard, parse_options, print_json
from pipelines.errors import UsageError


@dataclass(frozen=True)
class CompareOptions:
    """What to compare, and where the results are written."""

    evaluations: tuple[str, ...] = field(metadata=SEVERAL)
    """files that evaluate.py wrote (scores.json), or their folders"""
    protocol: str = "strict"
    """conventions of the printed table; the page and the CSV hold all"""
    report: str | None = None
    """URI of a page to write: one HTML file that loads nothing"""
    csv: str | None = None
    """URI of a file to write with every score and difference"""
    published: str = ""
    """published scores to show apart: moving_mnist, cikm2017, taxibj, weatherbench or
    shanghai2020; by default those of the archive; none: no published scores"""
    resamples: int = 1000
    """how often the days are drawn again for the intervals, at least 100; 0: no intervals"""
    seed: int = 0
    """seed of these draws"""


def compare(options: CompareOptions, json: bool = False) -> None:
    """Print the table, and write the page, the CSV and JSON if they are asked for."""
    from jobs.forecasts.comparison.evaluations import check_comparable, read_evaluations
    from jobs.forecasts.comparison.pairs import read_sums
    from jobs.forecasts.comparison.published import published_scores
    from jobs.forecasts.comparison.table import as_csv, published_lines, table
    from pipelines.storage import places

    _check_outputs(options)
    kept = read_evaluations(options.evaluations)
    check_comparable(kept, options.protocol)
    beside = published_scores(options.published, kept)
    sums = read_sums(kept, options.resamples, options.seed)
    lines = [*table(kept, options.protocol, sums), *published_lines(beside, kept)]
    if options.report:
        from jobs.forecasts.reports.comparison_page import comparison_page

        page = comparison_page(kept, options.protocol, sums, beside).encode()
        places.write_bytes(options.report, page)
        lines += ["", f"page: {options.report}"]
    scores = as_csv(kept, sums)
    if options.csv:
        places.write_bytes(options.csv, scores.encode())
        lines += ["", f"all scores: {options.csv}"]
    print("\n".join(lines))
    if json:
        written = {"page": options.report, "csv": options.csv}
        print_json(written | {"scores": list(DictReader(scores.splitlines()))})


def _check_outputs(options: CompareOptions) -> None:
    """Raise UsageError if a file to write is a folder, or its folder is read-only."""
    from pipelines.storage import places
    from pipelines.storage.writable import check_writable, is_folder

    for option, uri, example in (
        ("report", options.report, "comparison.html"),
        ("csv", options.csv, "scores.csv"),
    ):
        if uri is not None and (uri.endswith("/") or is_folder(uri)):
            raise UsageError(
                f"--{option} must be a file",
                where=places.absolute(uri),
                remedy=f"give it a name, such as {example}",
            )
        if uri:
            check_writable(places.absolute(uri).rpartition("/")[0] or "/", option)


def main() -> None:
    """Parse and compare."""
    compare(*parse_options(CompareOptions, __doc__))


if __name__ == "__main__":
    main_guard(main)
