"""When to perturb, as a word of a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable

from flatmin.optim import Every, LastPart, When, WhenLarge, WithProbability

RULES = "always, every-K, last-F, last-F-ramp-R, chance-Q or large"

_Make = Callable[..., When]

# The word as a pattern; its numbers, all steps of the training and the seed to the rule.
_WORDS: dict[str, _Make] = {
    r"every-(\d+)": lambda k, *, of, seed: Every(int(k)),
    r"last-([\d.]+)": lambda part, *, of, seed: LastPart(float(part), of),
    r"last-([\d.]+)-ramp-(\d+)": lambda part, r, *, of, seed: LastPart(float(part), of, int(r)),
    r"chance-([\d.]+)": lambda q, *, of, seed: WithProbability(float(q), seed),
    r"large": lambda *, of, seed: WhenLarge(of),
}


def rule(word: str, *, of: int, seed: int) -> When | None:
    """Read a rule.

    Args:
        word: Such as ``every-5``; ``always`` is none.
        of: All steps of the training.
        seed: Chooses the draws of ``chance-Q``.

    Returns:
        The rule, for the optimizer.

    Raises:
        ValueError: If there is no such rule, or its number is out of range.

    Example:
        >>> rule("last-0.25", of=100, seed=0)
        LastPart(fraction=0.25, of=100, ramp=0)
    """
    if word == "always":
        return None
    for pattern, make in _WORDS.items():
        if found := re.fullmatch(pattern, word):
            try:
                return make(*found.groups(), of=of, seed=seed)
            except ValueError as error:
                raise ValueError(f"when={word} cannot be used here: {error}") from error
    raise ValueError(f"when must be {RULES}, with numbers for K, F, R and Q, got {word!r}.")
