"""The forms of a report, by name. What a form needs is imported when it is asked for."""

from collections.abc import Callable, Mapping

from experiments.report import data, table
from experiments.report.contents import Report

FORMATS: Mapping[str, Callable[[Report], str]] = {
    "md": table.as_markdown,
    "csv": data.as_csv,
    "json": data.as_json,
}
