"""The report of an evaluation: one self-contained HTML page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jobs.drawing.curves import training_curve
from jobs.drawing.palettes import Colours
from jobs.forecasts.reports import cases, charts, tables
from jobs.forecasts.reports.motion import Motion
from jobs.forecasts.reports.template import fill_page
from jobs.forecasts.scoring import text
from jobs.forecasts.scoring.provenance import Provenance
from jobs.forecasts.scoring.score_rows import MODEL, STRICT
from jobs.forecasts.scoring.scores import Evaluation, GroupScores

if TYPE_CHECKING:
    from pipelines.stores.store import Store

FILM_RANK = "median"
"""The rank of the example that is animated and over which motion is drawn."""


def render(
    evaluation: Evaluation,
    provenance: Provenance,
    store: Store,
    protocol: str,
    motion: Motion | None = None,
    colours: Colours = "usual",
) -> str:
    """Return the page as HTML. The parameters are those of `contents`."""
    return fill(contents(evaluation, provenance, store, protocol, motion, colours))


def contents(
    evaluation: Evaluation,
    provenance: Provenance,
    store: Store,
    protocol: str,
    motion: Motion | None = None,
    colours: Colours = "usual",
) -> dict[str, Any]:
    """Return the values that the page shows, by their names in the template.

    Parameters
    ----------
    protocol:
        The protocol whose table comes first.
    motion:
        The motion in one of the examples, or None if the model has no motion modules.
    colours:
        The colours of radar fields, see `jobs.drawing.palettes`.
    """
    drawn = cases.quantities(evaluation, store, colours)
    examples = {example.rank: example for example in evaluation.examples}
    filmed = examples.get(FILM_RANK)
    moving = examples.get(motion.rank) if motion else None
    bootstrap = evaluation.bootstrap
    return {
        "p": provenance,
        "e": evaluation,
        "windows": text.windows(evaluation),
        "leads": text.lead_labels(evaluation.lead_seconds, evaluation.timed),
        "groups": [
            {"id": f"scores-{place}", **_group(evaluation, item, protocol, store)}
            for place, item in enumerate(evaluation.scores, start=1)
        ],
        "cases": [cases.case(evaluation, example, drawn) for example in examples.values()],
        "fields": cases.error_fields(evaluation, drawn),
        "film": cases.animation(evaluation, filmed, drawn[0]) if filmed else None,
        "motion": (
            cases.motion_row(evaluation, moving, drawn[0], motion) if moving and motion else None
        ),
        "palettes": list(dict.fromkeys(quantity.palette for quantity in drawn)),
        "training": _training(provenance),
        "resampling": (text.resampling(bootstrap) if bootstrap and bootstrap.none is None else ""),
    }


def fill(shown: dict[str, Any]) -> str:
    """Return the page as HTML from its contents."""
    options = json.dumps(shown["p"].options, indent=1)
    return fill_page("report.html", {**shown, "options": options, "time": cases.moment})


def _group(
    evaluation: Evaluation, item: GroupScores, protocol: str, store: Store
) -> dict[str, Any]:
    skills = {
        reference: {
            "value": text.skill_number(item.skill(reference).value),
            "interval": text.skill_interval(item, reference),
        }
        for reference in item.baselines
    }
    error = item.scores.overall(STRICT, MODEL, "rmse")
    return {
        "label": item.label,
        "name": item.long_name,
        "units": tables.units_of(item),
        "verdict": text.verdict(item),
        "model_rmse": text.number(error.value),
        "rmse_interval": text.interval(*error.interval),
        "skills": skills,
        "tables": tables.score_tables(evaluation, item, protocol),
        "by_lead": tables.by_lead(evaluation, item),
        "slices": tables.slices(item),
        "charts": charts.all_charts(evaluation, item),
    }


def _training(provenance: Provenance) -> str | None:
    if len(provenance.history) < 2:
        return None
    steps, losses = zip(*provenance.history, strict=True)
    return training_curve(steps, losses, provenance.step)
