"""What checks have found, on the terminal and for the report."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from normbench.check.properties import Checked, Standing

# Wider than any line of a table.
UNWRAPPED = 500

STYLES = {
    Standing.HOLDS: "green",
    Standing.BROKEN: "bold red",
    Standing.NOT_CLAIMED: "cyan",
    Standing.UNSUPPORTED: "yellow",
    Standing.SKIPPED: "dim",
}


def print_checked(checked: Checked, console: Console | None = None) -> None:
    """Print a table of the properties by section, what is broken again, and the counts."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for heading in ("property", "", "what was seen"):
        table.add_column(heading, overflow="fold")
    section = ""
    for each in checked.properties:
        if each.section != section:
            section = each.section
            table.add_row(Text(section, style="bold"), "", "")
        standing = Text(str(each.standing), style=STYLES[each.standing])
        table.add_row(f"  {each.name}", standing, Text(each.told))
    console = console or _console()
    console.print(Text(f"{checked.kind} {checked.subject}", style="bold"))
    console.print(table)
    for broken in checked.broken:
        console.print(Text(f"broken: {broken}", style="bold red"), soft_wrap=True)
    console.print(Text(check_summary(checked), style="bold"), soft_wrap=True)


def _console() -> Console:
    """Return standard output; a file or a pipe has lines as long as they are."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=UNWRAPPED)


def check_summary(checked: Checked) -> str:
    """Return what came of a check in one line."""
    counts = ", ".join(f"{number} {standing}" for standing, number in checked.counts.items())
    return f"{checked.kind} {checked.subject}: {counts} ({checked.seconds:.1f} s)"


def check_rows(checked: Checked) -> dict[str, Any]:
    """Return what the report shows of a check: what broke first, then section by section."""
    order = sorted(checked.properties, key=lambda p: p.standing is not Standing.BROKEN)
    return {
        "subject": f"{checked.kind} {checked.subject}",
        "counts": checked.counts,
        "broken": bool(checked.broken),
        "rows": [(p.section, p.name, str(p.standing), p.told) for p in order],
    }
