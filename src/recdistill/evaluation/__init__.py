"""Scores on held-out events: metrics, ranking protocols, statistics over seeds."""
