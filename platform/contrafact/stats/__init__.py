"""Statistics: data frames in, statements out."""

from contrafact.stats.model import MixedModel, fit, likelihood_ratio

__all__ = ["MixedModel", "fit", "likelihood_ratio"]
