"""Training: one loop, checkpoints, trajectories."""
