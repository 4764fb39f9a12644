"""The plots of a look: each computes its numbers and draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flatmin.analysis.eigenplane import eigenplane
from flatmin.analysis.eigenplane_figure import eigenplane_figure
from flatmin.analysis.filter_figure import filter_figure
from flatmin.analysis.filter_plane import filter_planes
from flatmin.analysis.landscape import landscape_of
from flatmin.analysis.landscape_figure import landscape_figure
from flatmin.analysis.line import line_between
from flatmin.analysis.line_figure import line_figure
from flatmin.analysis.subject import Subject, made_in
from flatmin.ball import Ball
from flatmin.record.style import house_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictures:
    """A network with data and a ball that can be drawn."""

    record: dict[str, Any]
    subject: Subject
    ball: Ball

    @property
    def _seed(self) -> int:
        return int(self.record["config"]["seed"])

    def plot_landscape(self, *, grid: int = 21) -> Figure:
        """Draw the loss along and around the steepest direction, in units of the ball.

        Args:
            grid: Points on each axis, at least 2; costs grid² + 6 grid forward passes.

        Returns:
            A figure of matplotlib.

        Raises:
            ValueError: If the grid is smaller.
        """
        if grid < 2:
            raise ValueError(f"grid must be at least 2, got {grid}.")
        land = self.record["landscape"]
        if land is None or len(land["grid"]) != grid:
            land = landscape_of(self.subject, self.ball, grid, self._seed)
            self.record["landscape"] = land
        with house_style():
            return landscape_figure(self.record)

    def plot_eigenplane(self, *, grid: int = 21, steps: int = 100) -> Figure:
        """Draw the loss along and around the two top eigenvectors of T H T, in units of the ball.

        Args:
            grid: Points on each axis, at least 2; costs grid² + 4 grid forward passes.
            steps: Most Hessian-vector products for the eigenvectors.

        Returns:
            A figure of matplotlib; dotted parabolas are what the eigenvalues foresee.
        """
        with made_in(self.subject.dtype):
            plane = eigenplane(
                self.subject.objective(), self.ball, grid=grid, steps=steps, seed=self._seed
            )
        with house_style():
            return eigenplane_figure(self.record, plane)

    def plot_filter_normalized(self, *, grid: int = 21) -> Figure:
        """Draw the plane of Li et al. 2018, to compare with the literature; rescaling fools it.

        Beside it stands the plane of a rescaled copy, along the same random numbers: it computes
        the same function, and looks different.

        Args:
            grid: Points on each axis, at least 2; costs 2 grid² forward passes.

        Returns:
            A figure of matplotlib.
        """
        planes = filter_planes(self.subject, grid=grid, seed=self._seed)
        with house_style():
            return filter_figure(self.record, planes)

    def line_to(self, other: Pictures, *, points: int = 25) -> dict[str, Any]:
        """Evaluate the loss on the straight line to another network, and its barrier.

        The barrier is how far the loss rises above the straight line between its two ends: as the
        networks are, after ``canonicalize``, which takes the rescalings out of the way, and with
        the units of the second in the order that lies nearest to the first, which takes the
        permutations out.

        Args:
            other: A look at a network with parameters of the same shapes, on the same data.
            points: Where the loss is evaluated, both ends included.

        Returns:
            Plain values: ``t``, and ``lines`` with ``name``, ``losses``, ``barrier`` and
            ``reason``: why a network could not be rescaled or matched, or None.
        """
        return line_between(self.subject, other.subject, points=points)

    def plot_line(self, other: Pictures, *, points: int = 25) -> Figure:
        """Draw the loss on the straight line to another network, with its barrier.

        Args:
            other: As for ``line_to``.
            points: Where the loss is evaluated, both ends included.

        Returns:
            A figure of matplotlib.
        """
        line = self.line_to(other, points=points)
        with house_style():
            return line_figure(self.record, other.record, line)
