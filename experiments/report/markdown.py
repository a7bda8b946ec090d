"""Tables as Markdown that can be read as plain text too."""

import io

from rich import box
from rich.console import Console
from rich.table import Table


def table(first: str, *others: str) -> Table:
    """Returns an empty table with these headings; all columns but the first hold numbers."""
    made = Table(box=box.MARKDOWN)
    made.add_column(first)
    for heading in others:
        made.add_column(heading, justify="right")
    return made


def render(table: Table) -> str:
    """Returns a table as text, its columns aligned."""
    text = io.StringIO()
    Console(width=10_000, color_system=None, file=text).print(table, markup=False)
    return text.getvalue().strip()
