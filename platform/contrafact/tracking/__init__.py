"""MLflow behind five verbs: start, params, metrics, artifact, finish. No other room loads it."""

from contrafact.tracking.tracker import Tracker

__all__ = ["Tracker"]
