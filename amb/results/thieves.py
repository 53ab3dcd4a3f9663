"""Who the thief of a cell is: what he knows and what he does, by what his attacks say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Final, get_args

from amb.api.types import Knows
from amb.results.records import CellRecord

if TYPE_CHECKING:
    from amb.api.interfaces import DescribeAttack

THREATS: Final = {
    "unattacked": "the embedded model as it is; the control",
    "removal": "the attacker has the model alone",
    "adaptive": "the attacker knows the method",
    "key leaked": "the attacker has the owner's key",
    "unknown": "attacks that no plugin here provides, so what the attacker knows cannot be told",
    "forgery": "a key is made up so that an innocent model verifies",
}
"""Threat models, weakest first."""
_BY_KNOWLEDGE: Final = {"model": "removal", "method": "adaptive", "key": "key leaked"}
_KNOWS: Final[tuple[Knows, ...]] = get_args(Knows)
SEVERAL: Final = "does several of these"
KNOWING: Final = ("knows the method", "knows the key")
UNKNOWN: Final = "does what no plugin here provides"
_BY_THREAT: Final[dict[str, str]] = {
    "unattacked": "deploys it as it is",
    "adaptive": KNOWING[0],
    "key leaked": KNOWING[1],
    "unknown": UNKNOWN,
    "forgery": "forges a key",
}


class Thieves:
    """Looks thieves up by the attacks of a cell, each attack once."""

    def __init__(self, describe: DescribeAttack) -> None:
        self._describe = cache(describe)

    def threat(self, cell: CellRecord) -> str:
        """Which of THREATS a positive or forged cell belongs to: the most that any attack of its chain knows."""
        if cell.kind == "forged":
            return "forgery"
        if not cell.is_attacked:
            return "unattacked"
        known = [each.get("knows") for each in self._describe_chain(cell)]
        if not all(each in _KNOWS for each in known):
            return "unknown"
        return _BY_KNOWLEDGE[max((each for each in known if each in _KNOWS), key=_KNOWS.index)]

    def thief(self, cell: CellRecord) -> str:
        """What the thief of a positive or forged cell is feared for: what he knows or, where that is the model alone, does."""
        threat = self.threat(cell)
        if threat != "removal":
            return _BY_THREAT[threat]
        does = {each["thief"] for each in self._describe_chain(cell)}
        return does.pop() if len(does) == 1 else SEVERAL

    def _describe_chain(self, cell: CellRecord) -> list[Mapping[str, str]]:
        """What each link of the chain says of itself; nothing where its plugin is not installed."""
        return [self._describe(link) or {} for link in cell.attack.split("+")]
