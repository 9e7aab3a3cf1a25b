"""Carries out a plan: stages by name, hashes, resume."""

from contrafact.run.context import Context, Facts, Progress, silent

__all__ = ["Context", "Facts", "Progress", "silent"]
