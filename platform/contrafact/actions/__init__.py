"""The few things a dashboard may change, each with its audit row."""

from contrafact.actions.verdicts import review, withdraw

__all__ = ["review", "withdraw"]
