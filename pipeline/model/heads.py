"""The two small modules between the backbone and the losses: the answer loss, and the learnt temperature.

Both exist as modules for one reason: ZeRO-3 brings a parameter together only inside the forward (and backward) of a module that owns it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_prep.samples import DataError
from pipeline.losses.answer import answer_cross_entropy


class AnswerLoss(nn.Module):
    """Cross-entropy of answer tokens through the language model's output matrix, without logits of vocabulary size.

    Chorus tokens are inputs, never words: decoding does not choose them (`evaluate.generate`), and the softmax leaves them out.
    The matrix is the head's own parameter, shared and not copied (it may be shared with the input embedding as well): the
    backbone keeps its parameters and their names.

    Args:
        never_ids: tokens left out of the softmax.

    Raises:
        DataError: the head has a bias.
    """

    def __init__(self, head: nn.Linear, never_ids: Sequence[int] = ()):
        super().__init__()
        if getattr(head, "bias", None) is not None:
            raise DataError(
                "the checkpoint's output head has a bias; expected none (Qwen-VL models have none): the answer loss would leave it out. "
                "Use a checkpoint without one, or fold the bias in"
            )
        self.weight = head.weight
        self.register_buffer("never_ids", torch.tensor(never_ids, dtype=torch.long), persistent=False)

    def forward(self, hidden_ND: Tensor, labels_N: Tensor) -> Tensor:
        """Nats of each token: float32 [N]."""
        return answer_cross_entropy(hidden_ND, self.weight, labels_N, self.never_ids)


class LearntTemperature(nn.Module):
    """log(start / temperature), from zero on: the temperature itself is `losses.contrastive.learnt_temperature`.

    Counted from the start and not from one, because numbers near zero are the ones that bfloat16 weights still resolve. A vector
    of length one: optimizers give vectors no weight decay, and ZeRO-3 has nothing to cut in a scalar. Of the type of all other
    weights, for ZeRO-3 lays them out in one buffer; the optimizer's own copy is float32 either way.
    """

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self) -> Tensor:
        """The log-scale: float32 []. A new tensor, since ZeRO-3 may take the parameter itself away."""
        return self.log_scale.float().sum()
