"""How little noise gives a perfect model a degenerate mode (part D, theory).

Mix (1 - e) P_good + e delta_bad. The bad string is the mode as soon as e > (1 - e) max P_good, that is e / (1 - e) above
the probability of the best good string, which for good text of entropy H nats is about exp(-H).
"""

from __future__ import annotations

import math

from methods.decoding.making_the_most.chain import Chain, contaminated, global_mode


def threshold(chain: Chain, longest: int) -> float:
    """The share e of empty strings from which on the empty string is the mode, in closed form.

    Args:
        chain: a law without noise.
        longest: see `global_mode`.
    """
    # Where the law has empty strings of its own, their share counts towards the noise only through the mode itself.
    _, log_best = global_mode(chain, longest)
    best = math.exp(log_best)
    return best / (1 + best)


def searched_threshold(chain: Chain, longest: int, tolerance: float = 1e-9) -> float:
    """The same share by bisection over the contaminated laws, each of whose modes is searched for.

    Args:
        chain: a law without noise; the empty string must have probability zero in it.
        longest: see `global_mode`.
        tolerance: relative width of the last interval.

    Raises:
        ValueError: the chain has empty strings already.
    """
    if chain.log_p[chain.start, chain.end] > -math.inf:
        raise ValueError(
            "the law has empty strings of its own; the threshold is that of noise added to good text"
        )
    low, high = 0.0, 0.5
    while high - low > tolerance * high:
        # Thresholds are tiny, so the interval is halved on the logarithmic scale once it has left 0.
        middle = math.sqrt(low * high) if low else high / 16
        string, _ = global_mode(contaminated(chain, middle), longest)
        low, high = (low, middle) if string == (chain.end,) else (middle, high)
    return (low + high) / 2
