"""What `mnemoscope rerun` says: one screen, disagreements first by name, then what was not computed again."""

import json
from dataclasses import asdict

from mnemoscope.recomputation import Recomputation
from mnemoscope.reports.phrases import plain

__all__ = ["DISAGREES", "rerun_json", "rerun_lines"]

DISAGREES = 22
"""Exit code where something does not agree; `mnemoscope verify` leaves with the same one for the same reason."""

HOW = {
    "scores": "decided again from stored scores",
    "answers": "attacks run again on recorded answers",
    "data": "the plan carried out again from its data",
}
MOST = 12
"""Disagreements shown in full; all of them with --json."""

LONGEST = 160


def rerun_lines(found: Recomputation) -> list[str]:
    """Return the screen."""
    wrong = found.disagreements
    agree = f"{len(found.rows) - len(wrong)} of {len(found.rows)} agree"
    lines = [
        f"rerun       {HOW[found.level]}",
        f"tolerance   {found.tolerance}",
        f"compared    {agree}",
        f"outcome     {'AGREES' if found.agrees else 'DISAGREES'}",
    ]
    words = [row for row in found.rows if row.what.endswith(": word")]
    lines += [f"word        {_plain(row.what.removesuffix(': word'))}: {_plain(row.recomputed)}" for row in words[:20]]
    if wrong:
        lines.append("")
        for row in wrong[:MOST]:
            lines += [
                f"x {_plain(row.what)}",
                f"    recorded    {_plain(row.recorded)}",
                f"    recomputed  {_plain(row.recomputed)}",
            ]
        if len(wrong) > MOST:
            lines.append(f"  and {len(wrong) - MOST} more: see --json")
    if found.taken_over:
        lines += ["", "taken over as the result has it:"]
        lines += [f"- {_plain(text)}" for text in found.taken_over]
    return lines


def rerun_json(found: Recomputation) -> str:
    """Return every row as JSON."""
    return json.dumps(asdict(found), indent=1)


def _plain(text: str) -> str:
    return plain(text, LONGEST)
