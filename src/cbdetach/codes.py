"""Phase codes: the value of each phase in every stored volume (DEFINITIONS: Phases)."""

from __future__ import annotations

VOID = 0
CBD = 1
ACTIVE = 2
ACTIVE_HIGH = 3
COLLECTOR = 4

PHASE_CODES: dict[str, int] = {
    "void": VOID,
    "cbd": CBD,
    "active": ACTIVE,
    "active_low": ACTIVE,
    "active_high": ACTIVE_HIGH,
    "collector": COLLECTOR,
}
"""Names that a person may give to a phase, and the code that is stored for each."""

N_PHASES = 5
