"""The plots of a look: each computes its numbers and draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from flatmin.analysis.eigenplane import eigenplane
from flatmin.analysis.eigenplane_figure import eigenplane_figure
from flatmin.analysis.filter_figure import filter_figure
from flatmin.analysis.filter_plane import filter_planes
from flatmin.analysis.landscape import landscape_of
from flatmin.analysis.landscape_figure import landscape_figure
from flatmin.analysis.layers import layers
from flatmin.analysis.layers_figure import layers_figure
from flatmin.analysis.line import line_between
from flatmin.analysis.line_figure import line_figure
from flatmin.analysis.measuring import Effort
from flatmin.analysis.spectrum import spectrum
from flatmin.analysis.spectrum_figure import spectrum_figure
from flatmin.analysis.subject import Subject, made_in
from flatmin.analysis.trajectory import trajectory
from flatmin.analysis.trajectory_figure import trajectory_figure
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
            Places ``t``, and ``lines`` with ``name``, ``losses``, ``barrier`` and ``reason``, which
            says why a network could not be rescaled or matched, or is None.
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

    def plot_spectrum(self, *, samples: int = 10, steps: int = 50) -> Figure:
        """Draw the density of all eigenvalues of T H T, with a band of one standard error.

        Args:
            samples: Random vectors, at least 2.
            steps: Hessian-vector products for each.

        Returns:
            A figure of matplotlib.
        """
        with made_in(self.subject.dtype):
            found = spectrum(
                self.subject.objective(), self.ball.scale, samples=samples, steps=steps,
                seed=self._seed,
            )  # fmt: skip
        with house_style():
            return spectrum_figure(self.record, found)

    def layers(self, measure: str = "worst-case") -> list[dict[str, Any]]:
        """Measure one layer at a time, the others held.

        Args:
            measure: A name out of ``MEASURES``.

        Returns:
            For each layer ``layer``, ``parameters``, ``value``, ``standard_error``, ``warnings``.
        """
        config = self.record["config"]
        effort = Effort(steps=config["steps"], samples=config["samples"], seed=self._seed)
        return layers(self.subject, measure, self.ball, effort)

    def plot_layers(self, measure: str = "worst-case") -> Figure:
        """Draw a measure layer by layer.

        Args:
            measure: A name out of ``MEASURES``.

        Returns:
            A figure of matplotlib.
        """
        found = self.layers(measure)
        with house_style():
            return layers_figure(self.record, measure, found)

    def plot_trajectory(self, states: Sequence[Mapping[str, Tensor]], *, grid: int = 21) -> Figure:
        """Draw checkpoints of a training in the plane in which they spread most, with its loss.

        Args:
            states: Their state dicts, in order; the network that was looked at is the origin.
            grid: Points on each axis, at least 2; costs grid² forward passes.

        Returns:
            A figure of matplotlib in parameter units, which rescaling changes.
        """
        found = trajectory(self.subject, states, grid=grid)
        with house_style():
            return trajectory_figure(self.record, found)
