"""Training: schedule, steps, checkpoints that survive a kill at any moment."""
