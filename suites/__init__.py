"""Suites: which methods meet on which tasks, at which sizes, on which profiles."""
