"""The forms of reports and comparisons, by name. What a form needs is imported when asked for."""

import importlib.util
from collections.abc import Callable, Mapping

from experiments.report import comparison_table, data, table
from experiments.report.comparison import Comparison
from experiments.report.contents import Report
from shufflenet_jax.errors import InputError

NEED_CURVES = ("html",)
"""Forms that show learning curves."""


def check(form: str, plots: bool) -> None:
    """Refuses what needs matplotlib where there is none.

    Args:
      form: What was asked for.
      plots: Whether plots were too.

    Raises:
      InputError: There is none.
    """
    if form == "html":
        need_matplotlib("an HTML report")
    if plots:
        need_matplotlib("a plot")


def need_matplotlib(what: str) -> None:
    """Refuses to make something where there is no matplotlib.

    Raises:
      InputError: There is none.
    """
    if not importlib.util.find_spec("matplotlib"):
        raise InputError(f"{what} needs matplotlib: pip install -e '.[plot]'")


def _as_latex(report: Report) -> str:
    from experiments.report import latex

    return latex.as_latex(report)


def _as_html(report: Report) -> str:
    from experiments.report import html

    return html.as_html(report)


def _comparison_as_latex(comparison: Comparison) -> str:
    from experiments.report import latex

    return latex.of_comparison(comparison)


def _comparison_as_html(comparison: Comparison) -> str:
    from experiments.report import html

    return html.of_comparison(comparison)


FORMATS: Mapping[str, Callable[[Report], str]] = {
    "md": table.as_markdown,
    "csv": data.as_csv,
    "json": data.as_json,
    "latex": _as_latex,
    "html": _as_html,
}

OF_COMPARISON: Mapping[str, Callable[[Comparison], str]] = {
    "md": comparison_table.as_markdown,
    "csv": comparison_table.as_csv,
    "json": comparison_table.as_json,
    "latex": _comparison_as_latex,
    "html": _comparison_as_html,
}
