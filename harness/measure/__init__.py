"""The instrument: what happens to a prepared method between its first run and its record.

`clock` and `memory` read figures inside a worker; `sampling` decides in the parent how often a method runs and in
which order the methods of a comparison take their turns. A better instrument changes this package alone.
"""
