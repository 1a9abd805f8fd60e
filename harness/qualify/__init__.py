"""Qualifies the instrument on a machine: what it takes for a change there is none of, and the smallest it finds.

``methods/`` here is a catalog of its own: methods of different kinds whose work is a known number of equal units, so
that a slow-down by a known amount is made, not assumed. They are measured against themselves exactly as the gate
measures two revisions.
"""
