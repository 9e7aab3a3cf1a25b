"""Statistics: data frames in, statements out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contrafact.stats.model import MixedModel, fit, likelihood_ratio

__all__ = ["MixedModel", "fit", "likelihood_ratio"]


def __getattr__(name: str) -> Any:
    """The engine is loaded when it is asked for: the store needs statements alone, and the service starts with it."""
    if name in __all__:
        from contrafact.stats import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
