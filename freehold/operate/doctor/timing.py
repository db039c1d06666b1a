"""Whether times tell two things apart: how often, side by side, the one was sooner."""

import math


def furthest(rounds: int, alarm: float) -> float:
    """How far from a half the part of rounds that a fair coin wins may lie; further it lies
    in less than `alarm` of all runs. Exact: where nothing can be learnt the coin alone decides
    who stands where the sooner answer is, in each round anew, so that the rounds won are
    binomial, however the times themselves are spread. Always more than can be for few rounds."""
    won, beyond = rounds, 0.0
    while (beyond := beyond + 2 * math.comb(rounds, won) / 2**rounds) <= alarm:
        won -= 1
    return (won + 1) / rounds - 0.5
