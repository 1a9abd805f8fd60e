"""Records and verdicts to pages, figures and machine-readable files. Imports the harness, never the reverse."""
