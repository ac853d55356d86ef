"""Optional fused kernels, behind one door: Liger's RMS norm, layer norm and SwiGLU in place of the backbone's own (arXiv 2410.10989).

They go in through transformers' own `integrations.liger.apply_liger_kernel`, which hands our choice to the package's function for the
model's family. Chosen are the kernels that compute what the module they replace computes. Left out:

    rope                         Liger replaces `apply_multimodal_rotary_pos_emb`, a name this transformers release no longer calls
    cross_entropy, fused_linear_cross_entropy   they replace a forward pass with labels that this pipeline never runs: its answer loss holds
                                 no logits either, and leaves out chorus tokens (`losses.answer`)

Qwen3-VL: the package (0.8.2, read, not run) replaces RMS norms alone there. Flash attention takes no mask and needs no setting here:
`model.attention two_causal` runs causal attentions without one, for which sdpa may choose its flash kernel.

**Not run:** the kernels are Triton and need a GPU.
"""

import importlib.util

import torch
from transformers import PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel

from data_prep.samples import DataError
from pipeline.config import ModelSettings

CHOSEN = {
    "rms_norm": True,
    "layer_norm": True,
    "swiglu": True,
    "rope": False,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}
"""Arguments of liger_kernel.transformers.apply_liger_kernel_to_<family>; those that a family lacks are passed over by the package."""


def check_kernels(settings: ModelSettings) -> None:
    """Refuse kernels that this machine cannot run, before any weight is read.

    Raises:
        DataError: the package is not installed, or there is no GPU.
    """
    if settings.kernels == "plain":
        return
    if importlib.util.find_spec("liger_kernel") is None:
        raise DataError(
            "model.kernels = liger: found no package liger_kernel; expected it beside this environment's torch. Install it "
            "(pip install liger-kernel), or set --model.kernels plain"
        )
    if not torch.cuda.is_available():
        raise DataError("model.kernels = liger: found no GPU; expected one, since the kernels are Triton. Set --model.kernels plain")


def apply_kernels(backbone: PreTrainedModel, settings: ModelSettings) -> None:
    """Replace the backbone's modules' forward passes where the settings say so; weights and their names stay as they are."""
    if settings.kernels == "liger":
        apply_liger_kernel(backbone, CHOSEN)
