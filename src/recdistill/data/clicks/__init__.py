"""Click logs: feature fields, a label, a time; read block by block."""
