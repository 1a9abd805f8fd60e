"""Regression gating: each method of a suite as it was in a base revision against as it is now.

`trees` lays out both revisions, `sides` expands the suite in each and pairs what is the same, `rounds` measures
the pairs taking turns, `decide` says what changed, `output` writes it for people and for other tools.
"""
