"""Prompts for generation inside the general grammars."""

from __future__ import annotations

from typing import Final


def binary_prompt(length: int) -> str:
    """Asks for a random bit string."""
    return f"Be a random number generator. Answer with a random binary string of length {length} and nothing else.\n"


_SUM = "Answer with one or more equations, each on a line of its own, such as a + 2 = b. No words.\n"
_OBJECT = "Answer with one JSON object and nothing else. Strings hold only letters and digits.\n"

OWN_PROMPTS: Final[dict[str, tuple[str, ...]]] = {
    "arithmetic": tuple(
        f"{_SUM}Question: {question}\nAnswer: "
        for question in (
            "how is the area of a rectangle computed from width and height?",
            "how is the average of x, y and z computed?",
            "what is the sum of twelve and thirty?",
            "how does one turn degrees Celsius into Fahrenheit?",
            "what is the price of n apples at p cents each, with a discount of d cents?",
            "how far does a car get that drives at speed v for t hours?",
            "how many seconds do h hours and m minutes have?",
            "what is the slope of the line through two points?",
            "how is the surface of a box computed from its three edges?",
            "what is left of a salary s after rent r and food f?",
        )
    ),
    "json": tuple(
        f"{_OBJECT}Question: {question}\nAnswer: "
        for question in (
            "describe a person with name, age and town.",
            "describe a book with title, year and number of pages.",
            "list three fruits and their colours.",
            "give the settings of a printer.",
            "describe a city with its population and country.",
            "give a weather report with temperature, wind and rain.",
            "describe an order of two items with their prices.",
            "describe a film with its director and a list of two actors.",
            "give the score of a football match.",
            "describe a computer with memory, disk and whether it is switched on.",
        )
    ),
}
"""Ten prompts for each of two grammars."""
