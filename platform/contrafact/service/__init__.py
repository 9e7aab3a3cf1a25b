"""The participant service: pages of our own, one idempotent write an answer, nothing acknowledged before it is on disk."""
