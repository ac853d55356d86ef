"""Floating-point operations of a step (a multiplication and an addition are two), and the time they take.

A linear layer with n weights takes 2n a token forward, 2n for its input's gradient and 2n for its weights'; attention 4 x keys x heads x
head size a token forward, 2.5 times that backward, since kernels compute the scores again (FlashAttention, Dao et al. 2022). Norms,
activations and rotations are left out, as is usual (Kaplan et al. 2020, section 2.1).

A step runs every chunk forward once without gradient where there are several chunks (gradient caching), then forward and backward;
gradient checkpointing runs each block forward once more.
"""

from dataclasses import dataclass

from pipeline.plan.sizes import Model, Stack
from pipeline.plan.work import Work


@dataclass(frozen=True)
class Operations:
    """Of one step over all ranks, forward once."""

    language: float
    language_attention: float
    vision: float
    """Blocks and mergers."""
    vision_attention: float
    patches: float
    """The patch embedding; pixels take no gradient."""
    head: float
    """The output matrix over answer tokens."""
    recomputed: float
    """What gradient checkpointing runs again: blocks up to their last matrix, whose output nothing backward reads."""

    @property
    def forward(self) -> float:
        """All of it."""
        return self.language + self.language_attention + self.vision + self.vision_attention + self.patches + self.head


def block_weights(stack: Stack) -> int:
    """Weights of a block's matrices: queries, keys, values, output; two or three of the feed-forward part."""
    heads = stack.heads * stack.head_size
    attention = stack.width * (2 * heads + 2 * stack.kv_heads * stack.head_size)
    return attention + stack.matrices * stack.width * stack.feed_forward


def attention_operations(stack: Stack, keys: float) -> float:
    """Scores and weighted values of one token in one block."""
    return 4 * keys * stack.heads * stack.head_size


def forward(model: Model, work: Work, mask: bool) -> Operations:
    """One forward pass over a step's sequences.

    Under a dense mask a token meets every place of its packed row; as two causal attentions half of its own sequence.
    """
    keys = work.row_tokens if mask else work.tokens / work.sequences / 2
    patches = work.image_tokens * model.patches
    image = work.patches_per_image * model.patches
    windowed = model.vision.layers - model.full_layers
    seen = model.full_layers * image + windowed * min(model.window_patches, image)
    merger = 2 * model.mergers * model.merger_width * (model.merger_width + model.language.width) * work.image_tokens
    language, tower = model.language, model.vision
    linear = [2 * tokens * stack.layers * block_weights(stack) for tokens, stack in ((work.tokens, language), (patches, tower))]
    last = [2 * tokens * stack.layers * stack.width * stack.feed_forward for tokens, stack in ((work.tokens, language), (patches, tower))]
    language_attention = work.tokens * language.layers * attention_operations(language, keys)
    vision_attention = patches * attention_operations(tower, seen)
    trained = model.parts["vision"]["trained"] > 0
    return Operations(
        language=linear[0],
        language_attention=language_attention,
        vision=linear[1] + merger,
        vision_attention=vision_attention,
        patches=2 * patches * model.patch_numbers * tower.width,
        head=2 * work.answer_tokens * model.vocabulary * language.width,
        recomputed=linear[0] - last[0] + language_attention + (linear[1] - last[1] + vision_attention if trained else 0.0),
    )


def step(model: Model, once: Operations, cached: bool, checkpointing: bool) -> float:
    """All operations of a step.

    Args:
        cached: several chunks, so that each runs forward twice.
        checkpointing: blocks run forward again in the backward pass.
    """
    passes = 1 + cached
    full, tower = (model.parts[part]["trained"] > 0 for part in ("language", "vision"))
    # a frozen matrix takes its input's gradient alone; a frozen tower has no gradient to pass on
    backward = once.language * (2 if full else 1) + 2.5 * once.language_attention
    if tower:
        backward += 2 * once.vision + 2.5 * once.vision_attention + once.patches
    # the answer loss computes its logits again for its own backward pass
    backward += once.head * (1 + (2 if full else 1))
    return passes * once.forward + backward + (once.recomputed if checkpointing else 0.0)


def seconds(operations: float, ranks: int, peak: float, utilisation: float) -> float:
    """Time at a stated share (model FLOP utilisation, Chowdhery et al. 2022) of a stated peak per GPU, in operations a second."""
    return operations / (ranks * peak * utilisation)
