"""The forms of a report, by name. What a form needs is imported when it is asked for."""

import importlib.util
from collections.abc import Callable, Mapping

from experiments.report import data, table
from experiments.report.contents import Report
from shufflenet_jax.errors import InputError

NEED_CURVES = ("html",)
"""Forms that show learning curves."""


def need_matplotlib(what: str) -> None:
    """Refuses to make what needs matplotlib where there is none.

    Raises:
      InputError: There is none.
    """
    if not importlib.util.find_spec("matplotlib"):
        raise InputError(f"{what} needs matplotlib: pip install -e '.[plot]'")


def _as_html(report: Report) -> str:
    need_matplotlib("an HTML report")
    from experiments.report.html import as_html

    return as_html(report)


def _as_latex(report: Report) -> str:
    from experiments.report.latex import as_latex

    return as_latex(report)


FORMATS: Mapping[str, Callable[[Report], str]] = {
    "md": table.as_markdown,
    "csv": data.as_csv,
    "json": data.as_json,
    "latex": _as_latex,
    "html": _as_html,
}
