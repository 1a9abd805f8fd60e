"""The instrument: what happens to a prepared method between its first run and its record.

`clock` and `memory` read figures inside a worker; `turns` decides in the parent in which order the methods of a
comparison run, how often and for how long; `disturbance` watches the machine meanwhile; `statistics` makes latencies and
ratios of what came out. ``docs/instrument.md`` explains the choices, with the study behind them.
"""
