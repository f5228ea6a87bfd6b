"""Interactions in, batches out: logs, splits, prepared datasets, distilled datasets."""
