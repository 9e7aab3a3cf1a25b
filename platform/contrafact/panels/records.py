"""What the ledger keeps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaymentRecord:
    """``amount`` in minor units; ``submission`` is the keyed hash; ``reference`` names the panel's set."""

    submission: str
    reason: str
    amount: int
    currency: str
    state: str
    reference: str | None
