"""Plans, reports and descriptions as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.timeline.splits import split_text

if TYPE_CHECKING:
    from pipelines.audit.inspection import (
        StaticFieldDescription,
        StoreDescription,
        VariableDescription,
    )
    from pipelines.audit.verification import Verification
    from pipelines.conversion.estimate import (
        ClipsDescription,
        Estimate,
        Gap,
        PlanDescription,
        PlannedStaticField,
    )
    from pipelines.conversion.options import ConversionReport
    from pipelines.stores.history import Commit

_SHOWN_GAPS = 8
_SHOWN_PROBLEMS = 40


def show_plan(plan: PlanDescription, windows: dict[str, Any] | None) -> str:
    """Return a text about what `convert` would do.

    Parameters
    ----------
    windows
        Number of windows of each split; None if they were not counted.
    """
    rows = [
        ("title", plan.title + (" (synthetic)" if plan.synthetic else "")),
        ("files", f"{plan.files} ({size(plan.files_bytes)})"),
        *_period_rows(plan.periods),
        *_clip_rows(plan.samples),
        ("frames", _frames(plan.frames, plan.cadence_seconds, plan.samples)),
    ]
    for name, variable in plan.variables.items():
        line = _array_line(variable.long_name, variable.units, variable.dims, variable.shape)
        rows.append((name, line))
    for name, field in plan.static_fields.items():
        rows += _planned_static_rows(name, field)
    rows += [
        ("chunk, shard", f"{plan.chunk_frames} and {plan.shard_frames} frames"),
        ("shards", f"{plan.shards}, of which {plan.shards_due} to write"),
        ("bytes raw", size(plan.bytes_raw)),
        *_estimate_rows(plan.estimate),
        *_split_rows(plan.splits, plan.splits_origin),
        *_window_rows(windows),
        *_gap_rows(plan.gaps),
        *(("note", note) for note in plan.notes),
    ]
    return table(rows)


def show_report(report: ConversionReport) -> str:
    """Return a text about what `convert` did."""
    if not report.changed:
        lines = [f"nothing to do: {report.store} holds all {report.frames} frames of the source"]
        return "\n".join([*lines, *_unreadable_lines(report), *report.notes])
    rate = report.bytes_converted / 1e6 / max(report.seconds_converting, 1e-9)
    rows = [
        ("store", report.store),
        ("frames", f"{report.frames}, {report.missing_frames} missing in {report.gaps} gaps"),
        ("shards", f"{report.shards_written} written, {report.shards_skipped} as they were"),
        *(
            [("static fields", f"{report.static_fields_written} of {report.static_fields} written")]
            if report.static_fields
            else []
        ),
        ("bytes", f"{size(report.bytes_raw)} raw, {size(report.bytes_stored)} stored"),
        (
            "seconds",
            f"{report.seconds:.1f} (reading headers {report.seconds_indexing:.1f}, starting Ray "
            f"{report.seconds_starting:.1f}, converting {report.seconds_converting:.1f}: "
            f"{rate:.0f} MB/s)",
        ),
        *(("unreadable", line) for line in _unreadable_lines(report)),
        *(("note", note) for note in report.notes),
    ]
    text = table(rows)
    if report.statistics_changed:
        text += (
            "\nThe train period's statistics changed: checkpoints trained on the old ones will be "
            "refused.\nTo keep the splits fixed while an archive grows, give them with --splits."
        )
    return text


def _unreadable_lines(report: ConversionReport) -> list[str]:
    rest = len(report.unreadable) - _SHOWN_GAPS
    more = [f"and {rest} more files"] if rest > 0 else []
    return [*report.unreadable[:_SHOWN_GAPS], *more]


def show_store(description: StoreDescription, windows: dict[str, Any] | None = None) -> str:
    """Return a text about what a store holds, and its number of windows if they were counted."""
    grid = " x ".join(
        f"{dim} {axis.size}"
        + (f" ({axis.from_to[0]:g} to {axis.from_to[1]:g})" if axis.from_to else "")
        for dim, axis in description.grid.items()
    )
    title = description.title + (" (synthetic)" if description.synthetic else "")
    clips = description.samples
    frames = _frames(description.frames, description.cadence_seconds, clips)
    rows = [
        ("store", description.store),
        ("title", f"{title}, archive {description.archive}"),
        ("grid", grid),
        *_period_rows([description.period] if description.period else []),
        *_clip_rows(clips),
        ("frames", f"{frames}, {description.frames_available} usable"),
    ]
    for name, variable in description.variables.items():
        rows += _variable_rows(name, variable, description.statistics["variables"][name])
    for name, field in description.static_fields.items():
        rows += _static_rows(name, field)
    provenance = description.provenance
    rows += [
        ("objects", f"{description.objects} ({size(description.bytes)})"),
        *_split_rows(description.splits, description.splits_origin),
        *_window_rows(windows),
        *_gap_rows(description.gaps),
        ("statistics", description.statistics_fingerprint),
        ("source", f"{provenance.source} ({len(provenance.files)} files)"),
        ("written", f"{provenance.updated_at} by {provenance.owner}"),
    ]
    return table(rows)


def _variable_rows(
    name: str, variable: VariableDescription, statistics: Mapping[str, Any]
) -> list[tuple[str, str]]:
    missing = variable.shards_missing
    return [
        (name, _array_line(variable.long_name, variable.units, variable.dims, variable.shape)),
        (
            "",
            f"{variable.shards} shards of {variable.shard_frames} frames, chunks of "
            f"{variable.chunk_frames}, {size(variable.bytes_stored)} of {size(variable.bytes_raw)}"
            + (f"; {missing} MISSING: see verify" if missing else ""),
        ),
        ("", _statistics_line(statistics)),
    ]


def _statistics_line(s: Mapping[str, Any]) -> str:
    if not s["count"]:
        return (
            f"train: no value, all {s['nan_count']} are missing: nothing can be trained on it "
            "(leave it out with --variables)"
        )
    return (
        f"train: mean {s['mean']:.6g}, std {s['std']:.6g}, "
        f"{s['min']:.6g} to {s['max']:.6g}, {s['nan_count']} values missing"
    )


def show_runs(runs: Sequence[Commit]) -> str:
    """Return a text about the commits of a history, in the given order."""
    rows = [
        (
            run.snapshot,
            f"run of {run.run}, {run.frames} frames to {run.last_time}, "
            f"{run.changed} of {run.objects} objects changed",
        )
        for run in runs
    ]
    return table(rows) if rows else "no run was published yet"


def show_verification(found: Verification) -> str:
    """Return a text about what is wrong with a store."""
    if found.ok:
        line = f"{found.store}: {found.objects} objects ({size(found.bytes)}) are as recorded"
        return "\n".join([line, *_anomaly_lines(found)])
    lines = [f"{found.store}: {len(found.problems) + len(found.source_problems)} problems"]
    for title, problems in (("store", found.problems), ("source", found.source_problems)):
        for problem in problems[:_SHOWN_PROBLEMS]:
            frames = f" ({problem.frames})" if problem.frames else ""
            lines.append(f"  {title}: {problem.kind} {problem.place}{frames}")
        if len(problems) > _SHOWN_PROBLEMS:
            lines.append(f"  {title}: and {len(problems) - _SHOWN_PROBLEMS} more")
    return "\n".join([*lines, *_anomaly_lines(found), f"to mend it: {found.remedy}"])


def _anomaly_lines(found: Verification) -> list[str]:
    """Return warnings about frames that look wrong; they do not change the exit code."""
    lines = [
        f"  warning: {a.variable}{f' (channel {a.channel})' if a.channel else ''}, {a.first}"
        + (f" to {a.last}" if a.frames > 1 else "")
        + f": {a.kind}, {a.detail}"
        for a in found.suspicious[:_SHOWN_PROBLEMS]
    ]
    if len(found.suspicious) > _SHOWN_PROBLEMS:
        lines.append(f"  warning: and {len(found.suspicious) - _SHOWN_PROBLEMS} more")
    return lines


def table(rows: list[tuple[str, str]]) -> str:
    """Return rows as text in two columns, the first of which is padded."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def size(count: float) -> str:
    """Return a number of bytes as text.

    >>> size(1_500_000)
    '1.5 MB'
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: int) -> str:
    """Return a cadence as text.

    >>> duration(3600), duration(1800)
    ('1 h', '30 min')
    """
    for unit, scale in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds % scale == 0:
            return f"{seconds // scale} {unit}"
    return f"{seconds} s"


def elapsed(seconds: float) -> str:
    """Return an elapsed time as text.

    >>> elapsed(0.2), elapsed(75), elapsed(9000)
    ('0.2 s', '75 s', '2.5 h')
    """
    for unit, scale, least in (("h", 3600, 7200), ("min", 60, 120)):
        if seconds >= least:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _estimate_rows(estimate: Estimate | None) -> list[tuple[str, str]]:
    if estimate is None:
        return [("estimate", "none: no chunk of the source could be read")]
    bad = estimate.chunks_unreadable
    plural = "s" if estimate.processors > 1 else ""
    return [
        (
            "bytes stored",
            f"about {size(estimate.bytes_stored)} ({estimate.ratio:.2g} : 1) in "
            f"{estimate.objects} objects",
        ),
        (
            "time",
            f"about {elapsed(estimate.seconds)} on {estimate.processors} processor{plural} "
            "of this machine, without starting Ray",
        ),
        (
            "",
            f"estimated from {estimate.chunks} chunks that were decoded and encoded here"
            + (f"; {bad} more cannot be read" if bad else ""),
        ),
    ]


def _window_rows(windows: dict[str, Any] | None) -> list[tuple[str, str]]:
    if windows is None:
        return [("windows", "counted with --input_frames N --horizon N")]
    counts = ", ".join(f"{split} {count}" for split, count in windows["splits"].items())
    stride = f" at stride {windows['stride']}" if windows["stride"] > 1 else ""
    return [
        ("windows", f"{windows['input_frames']} -> {windows['horizon']} frames{stride}: {counts}")
    ]


def _array_line(long_name: str, units: str, dims: Sequence[str], shape: Sequence[int]) -> str:
    axes = ", ".join(f"{dim} {n}" for dim, n in zip(dims, shape, strict=True))
    unit = f" [{units}]" if units else ""
    return f"{long_name}{unit} ({axes})"


def _static_rows(name: str, field: StaticFieldDescription) -> list[tuple[str, str]]:
    line = _array_line(field.long_name, field.units, field.dims, field.shape)
    return [
        (name, f"{line}, without time"),
        (
            "",
            f"mean {field.mean:.6g}, std {field.std:.6g}, {field.min:.6g} to {field.max:.6g}",
        ),
    ]


def _planned_static_rows(name: str, field: PlannedStaticField) -> list[tuple[str, str]]:
    fill = field.missing_pixels_set_to
    more = "" if fill is None else f", missing pixels set to {fill:g}"
    line = _array_line(field.long_name, field.units, field.dims, field.shape)
    return [(name, f"{line}, without time"), ("", f"from {field.file}{more}")]


def _period_rows(periods: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    return [("period", f"{first} to {last}") for first, last in periods]


def _clip_rows(clips: ClipsDescription | None) -> list[tuple[str, str]]:
    return [("clips", f"{clips.count} of {clips.frames} frames")] if clips else []


def _frames(frames: int, cadence_seconds: int | None, clips: ClipsDescription | None) -> str:
    if cadence_seconds is None:
        return str(frames)
    steps = dict.fromkeys(np.diff(clips.offsets if clips else []).tolist())
    shown = " then ".join(duration(step) for step in steps or [cadence_seconds])
    return f"{frames} every {shown}"


def _split_rows(splits: Mapping[str, Any], origin: str) -> list[tuple[str, str]]:
    return [(name, f"{' to '.join(split_text(ends))} ({origin})") for name, ends in splits.items()]


def _gap_rows(gaps: Sequence[Gap]) -> list[tuple[str, str]]:
    rows = [
        ("gap", f"{gap.first} to {gap.last}, {gap.frames} frames, {gap.why}")
        for gap in gaps[:_SHOWN_GAPS]
    ]
    if len(gaps) > _SHOWN_GAPS:
        frames = sum(gap.frames for gap in gaps[_SHOWN_GAPS:])
        rows.append(("", f"and {len(gaps) - _SHOWN_GAPS} more gaps with {frames} frames"))
    return rows or [("gaps", "none")]
