"""The papers: one folder per family, one folder per paper in it."""
