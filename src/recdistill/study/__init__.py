"""Studies: many models trained on many datasets, each cell of the grid once, and what follows from their scores."""
