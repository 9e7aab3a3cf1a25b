"""Who sees what, how it goes out and comes back, and simulated people who answer like real ones."""
