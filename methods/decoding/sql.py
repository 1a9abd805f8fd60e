"""SELECT statements over a small schema: a grammar, and a source of statements that follow it.

The statements are made up; they stand for text-to-SQL where a data set of questions is not at hand.
"""

from __future__ import annotations

import numpy as np

SCHEMA = {
    "singer": ("name", "country", "age", "net_worth"),
    "concert": ("title", "year", "stadium_id", "visitors"),
    "stadium": ("location", "capacity", "average", "opened"),
    "album": ("title", "year", "singer_id", "sales"),
}
"""Tables and their columns."""

WORDS = ("France", "Japan", "London", "Berlin", "Red", "Blue", "Summer", "Winter")
"""Texts that the statements compare with."""

_COLUMNS = {table: " | ".join(f'"{column}"' for column in columns) for table, columns in SCHEMA.items()}

GRAMMAR = "\n".join(
    (
        "root ::= " + " | ".join(f"{table}_query" for table in SCHEMA),
        *(
            f'{t}_query ::= "SELECT " {t}_what " FROM {t}" {t}_where? {t}_group? {t}_order? limit?\n'
            f'{t}_what ::= "*" | "COUNT(*)" | {t}_item (", " {t}_item)*\n'
            f'{t}_item ::= {t}_col | ("AVG" | "MAX" | "MIN" | "SUM") "(" {t}_col ")"\n'
            f'{t}_where ::= " WHERE " {t}_test ((" AND " | " OR ") {t}_test)*\n'
            f'{t}_test ::= {t}_col (" = " | " > " | " < " | " >= " | " <= " | " != ") value\n'
            f'{t}_group ::= " GROUP BY " {t}_col\n'
            f'{t}_order ::= " ORDER BY " {t}_col (" DESC" | " ASC")?\n'
            f"{t}_col ::= {_COLUMNS[t]}"
            for t in SCHEMA
        ),
        'limit ::= " LIMIT " number',
        'value ::= number | "\'" word "\'"',
        "number ::= [1-9] [0-9]*",
        "word ::= [A-Za-z]+",
    )
)
"""EBNF of the statements: every column belongs to the table that the statement reads."""


def statement(stream: np.random.Generator) -> str:
    """One statement of the language of `GRAMMAR`."""
    table = str(stream.choice(list(SCHEMA)))
    columns = SCHEMA[table]

    def column() -> str:
        return str(stream.choice(columns))

    def value() -> str:
        number, word = int(stream.integers(1, 2000)), str(stream.choice(WORDS))
        return str(number) if stream.random() < 0.6 else f"'{word}'"

    def item() -> str:
        function = str(stream.choice(["AVG", "MAX", "MIN", "SUM"]))
        return f"{function}({column()})" if stream.random() < 0.25 else column()

    kind = stream.random()
    what = (
        "*"
        if kind < 0.15
        else "COUNT(*)"
        if kind < 0.3
        else ", ".join(item() for _ in range(stream.integers(1, 4)))
    )
    text = f"SELECT {what} FROM {table}"
    if stream.random() < 0.6:
        operators = [" = ", " > ", " < ", " >= ", " <= ", " != "]
        tests = [f"{column()}{stream.choice(operators)}{value()}" for _ in range(stream.integers(1, 3))]
        text += " WHERE " + str(stream.choice([" AND ", " OR "])).join(tests)
    if stream.random() < 0.2:
        text += f" GROUP BY {column()}"
    if stream.random() < 0.4:
        text += f" ORDER BY {column()}" + str(stream.choice(["", " DESC", " ASC"]))
    if stream.random() < 0.25:
        text += f" LIMIT {stream.integers(1, 20)}"
    return text
