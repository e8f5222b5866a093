"""All that is written of a session once it is over: tables, a summary, the page, figures."""

from collections.abc import Callable

from normbench.report.page import needed_pictures, write_figures, write_report
from normbench.report.summary import write_summary
from normbench.report.tables import write_tables
from normbench.storage.session import StoredSession

__all__ = ["needed_pictures", "write_all"]

# Figures take a second each: short sessions leave them to ``normbench report``.
FIGURES_AFTER_SECONDS = 300.0


def write_all(session: StoredSession) -> list[str]:
    """Draw what a session has stored into its folder; return what could not be drawn, and why.

    Whatever fails here, all that was measured is stored, and ``normbench report`` draws it again.
    """
    parts: dict[str, Callable[[StoredSession], object]] = {
        "tables": write_tables,
        "summary": write_summary,
        "report": write_report,
    }
    if session.document.seconds > FIGURES_AFTER_SECONDS:
        parts["figures"] = write_figures
    notes = []
    for name, write in parts.items():
        try:
            write(session)
        except Exception as error:
            notes.append(
                f"the {name} could not be drawn: {type(error).__name__}: {error}; all runs and "
                f"verdicts are in {session.folder}"
            )
    return notes
