"""What all doors ask of a ``minimizer``."""

from __future__ import annotations


def check_minimizer(minimizer: object) -> None:
    """Refuse an optimizer in place of what makes one.

    Raises:
        TypeError: If it cannot be called.
    """
    if not callable(minimizer):
        raise TypeError(
            "minimizer makes the wrapper from the base optimizer, as SAM or partial(ASAM, "
            f"rho=1.0) do, and is a {type(minimizer).__name__} object; leave its arguments to "
            "partial."
        )
