"""The arrow schema of a shard: the contract between `data_prep` (writer) and `pipeline.batches` (reader).

A row is one sample. Its sequences are complete: every token with the role it plays under the compression mask, image
placeholders already expanded to one token per merged patch, the images resized by the model's own rules and losslessly encoded.
Nothing is left to do at training time but decode, pack and run.
"""

from enum import IntEnum

import pyarrow as pa

SCHEMA_VERSION = 1


class Role(IntEnum):
    """The part a token plays (CREM, "compression-based prompt design").

    CONTEXT  V and T: system line, image, embedding instruction; hidden from PROMPT and ANSWER when z = 1
    CHORUS   U: the K learnable summary tokens
    PROMPT   Q: generation instruction and chat markers after the chorus
    ANSWER   A: what cross-entropy is taken on, the end-of-turn token included
    """

    CONTEXT = 0
    CHORUS = 1
    PROMPT = 2
    ANSWER = 3


IMAGE = pa.struct([("data", pa.binary()), ("height", pa.int32()), ("width", pa.int32())])
"""A resized image as an encoded file; height and width in pixels, both multiples of patch size x merge size."""

SEQUENCE = pa.struct(
    [
        ("ids", pa.list_(pa.int32())),
        ("roles", pa.list_(pa.uint8())),
        ("images", pa.list_(pa.int32())),
    ]
)
"""Token ids and roles of equal length, and the row's images it shows, in order of their placeholders."""

ROW = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("query", SEQUENCE),
        ("positive", SEQUENCE),
        ("negatives", pa.list_(SEQUENCE)),
        ("images", pa.list_(IMAGE)),
    ]
)
"""`positive` is null for a generation-only row; `query` carries PROMPT and ANSWER tokens when the row has turns."""
