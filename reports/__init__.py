"""Documents and figures from one result."""

from mnemoscope.reports.html import ReportPaths, render_html, write_report
from mnemoscope.reports.schema import from_json, json_schema, read_result, result_digest, to_json, write_result

__all__ = [
    "ReportPaths",
    "from_json",
    "json_schema",
    "read_result",
    "render_html",
    "result_digest",
    "to_json",
    "write_report",
    "write_result",
]
