"""The vision tower's patch embedding as one matrix product, with the checkpoint's own weights.

All families embed patches by a three-dimensional convolution whose kernel is as large as a patch and whose stride is its size. The image
processor has cut the patches apart already, so every one of them meets the kernel once: a matrix product over flattened patches. Libraries
do not notice; they prepare a convolution over [P, 3, 2, 14, 14]. On a CPU, in float32, that took an eighth to a seventh of a whole
training step. On a GPU: not yet measured.

The module keeps its parameters, their names and shapes, so checkpoints and exports do not change.
"""

from torch import Tensor, nn


class PatchProjection(nn.Conv3d):
    """A convolution for inputs of exactly the kernel's size, which takes them as rows of a matrix."""

    def forward(self, patches: Tensor) -> Tensor:
        """[P, channels, frames, height, width] -> [P, D].

        `flatten` of a contiguous weight is a view, and no patch needs a gradient: nothing of the weight is kept for the backward pass,
        so ZeRO-3 may take it away in between.
        """
        rows_PD = patches.flatten(1) @ self.weight.flatten(1).T
        return rows_PD if self.bias is None else rows_PD + self.bias


def as_matrix_product(projection: nn.Conv3d) -> None:
    """Make an opened checkpoint's patch projection a `PatchProjection`, in place.

    Raises:
        ValueError: it does more than meet every patch once (stride, padding, dilation or groups).
    """
    plain = dict(stride=projection.kernel_size, padding=(0, 0, 0), dilation=(1, 1, 1), groups=1)
    found = {name: getattr(projection, name) for name in plain}
    if found != plain:
        raise ValueError(f"found a patch projection with {found}, expected {plain}: it is no matrix product over patches")
    # the object stays, with its parameters and their hooks; only how it computes is another
    projection.__class__ = PatchProjection
