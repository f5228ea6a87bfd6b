"""Adam with an adjoint that is not exact: the published one of Farzi, kept so that the two can be compared."""

from dataclasses import dataclass

from torch import Tensor

from recdistill.bilevel.optimizer import Adam, Cotangent, Student


@dataclass(frozen=True, kw_only=True)
class FoldedAdam(Adam):
    """Adam that steps as :class:`~recdistill.bilevel.optimizer.Adam` does and walks back without a second moment.

    Whatever would reach the second moment's adjoint is multiplied by ``(1 - beta2) / (1 - beta1)`` and added to the
    first one's, with which it then decays. For a window of one step that is exact. For any longer one it is not: an
    early gradient's effect on the size of later steps is lost, and the adjoint of the first moment carries back what
    does not belong to it. Not for anything but a comparison with Farzi as published: Adam's own adjoint is exact and
    costs one flat tensor more. A taped window knows no adjoint and gives the exact gradient.

    Reference: Sachdeva et al., Farzi Data, 2023, arXiv 2310.09983, reverse-mode Adam.
    """

    def pull_back(
        self, before: Student, gradient: Tensor, after: Student, cotangent: Cotangent
    ) -> tuple[Tensor, Cotangent]:
        """Return the cotangents of the gradient and of ``before``; that of a second moment is not read, and is 0."""
        beta1, beta2 = self.betas
        first_bar, second_bar = self._moment_bars(after, cotangent.weights)
        slope = self._slope(before.weights, gradient)
        first_bar.addcmul_(slope, second_bar, value=2 * (1 - beta2) / (1 - beta1)).add_(cotangent.moments[0])
        slope_bar = (1 - beta1) * first_bar
        weights_bar = self._through_decay(cotangent.weights, slope_bar)
        return slope_bar, Cotangent(weights_bar, (first_bar.mul_(beta1), second_bar.zero_()))
