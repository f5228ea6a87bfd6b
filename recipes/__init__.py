"""Experiments: one file each, one command each, one JSON file in ``results/`` each."""
