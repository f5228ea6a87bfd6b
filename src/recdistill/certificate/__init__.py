"""What may be concluded from training on a distilled dataset: measured, stated with uncertainty, and checked again."""
