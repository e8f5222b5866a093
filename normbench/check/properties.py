"""What a check finds: properties, each with how it stands; needs no torch, as reports read it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Standing(StrEnum):
    """How a property stands with what was checked.

    NOT_CLAIMED was measured, and nothing was said of it; UNSUPPORTED was refused with an error by
    the layer itself; SKIPPED could not be checked on this machine.
    """

    HOLDS = "holds"
    BROKEN = "broken"
    NOT_CLAIMED = "not claimed"
    UNSUPPORTED = "unsupported"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Property:
    """A property by its section and name, how it stands, and what was seen, in a sentence."""

    section: str
    name: str
    standing: Standing
    told: str = ""


@dataclass(frozen=True)
class Checked:
    """The properties of one ``subject``, a ``kind`` of norm, regularizer or network.

    ``planted`` names the fault that was planted while it was checked; empty without one.
    """

    kind: str
    subject: str
    properties: tuple[Property, ...]
    seconds: float
    planted: str = ""

    def __repr__(self) -> str:
        """Show what a failed assertion should say, and not every property."""
        return f"Checked({self.kind} {self.subject}: {len(self.broken)} broken)"

    def of(self, standing: Standing) -> list[Property]:
        """Return the properties that stand so."""
        return [each for each in self.properties if each.standing is standing]

    @property
    def broken(self) -> list[str]:
        """What is broken, each in one line; empty where nothing is."""
        return [f"{each.section}, {each.name}: {each.told}" for each in self.of(Standing.BROKEN)]

    @property
    def counts(self) -> dict[str, int]:
        """How many properties stand how, in the order of Standing; none that are 0."""
        found = Counter(each.standing for each in self.properties)
        return {str(standing): found[standing] for standing in Standing if found[standing]}

    def to_dict(self) -> dict[str, Any]:
        """Return it in builtin types."""
        properties = [{**asdict(each), "standing": str(each.standing)} for each in self.properties]
        return {**asdict(self), "properties": properties}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "Checked":
        """Return what to_dict was called on; raises ValueError where it is none."""
        try:
            listed: Sequence[Mapping[str, Any]] = values["properties"]
            properties = tuple(
                Property(p["section"], p["name"], Standing(p["standing"]), p["told"])
                for p in listed
            )
            return cls(
                values["kind"],
                values["subject"],
                properties,
                float(values["seconds"]),
                str(values.get("planted", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"expected what a check has found: {error!r}") from error
