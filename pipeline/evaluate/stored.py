"""The chorus cache as a file: what compressed answers read, without the image or text it came from.

Kept are the keys and values of the k chorus tokens in every layer, and the position that follows them. The file is safetensors; its
metadata names the format, the checkpoint (by digest), and how long each context was. A cache means something to the very weights that
wrote it only, so one of another checkpoint is refused.

Shapes: L layers, B contexts, H key-value heads, k chorus tokens (k in names, too), E head size.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import cached_file

from data_prep.encode import Encoder
from data_prep.samples import DataError
from data_prep.shards import atomic_file, file_digest
from pipeline.evaluate.generate import Context

FORMAT = "crem-chorus-cache/1"
"""Name and version of the file format."""


@dataclass(frozen=True)
class StoredContext:
    """The chorus cache of B contexts.

    Raises:
        DataError: its parts do not fit together.
    """

    keys_LBHkE: Tensor
    values_LBHkE: Tensor
    next_positions: tuple[int, ...]
    """M-RoPE position of the token after each chorus, as in the full sequence."""
    prefix_lengths: tuple[int, ...]
    """Tokens of each context with its chorus, before all but the chorus was dropped."""
    checkpoint: str
    """`checkpoint_digest` of the checkpoint that wrote it."""

    def __post_init__(self) -> None:
        shapes = tuple(self.keys_LBHkE.shape), tuple(self.values_LBHkE.shape)
        counts = len(self.next_positions), len(self.prefix_lengths)
        if shapes[0] != shapes[1] or len(shapes[0]) != 5 or set(counts) != {shapes[0][1]}:
            raise DataError(
                f"chorus cache: found keys {list(shapes[0])}, values {list(shapes[1])}, {counts[0]} positions, {counts[1]} lengths; "
                "expected keys and values of one shape [layers, contexts, heads, k, size] and one position and length per context. "
                "Make it again with remember()"
            )

    def __len__(self) -> int:
        return len(self.prefix_lengths)

    @property
    def k(self) -> int:
        """Chorus tokens of each context."""
        return self.keys_LBHkE.shape[3]

    @property
    def cache_shares(self) -> list[float]:
        """Share of each context's cache that is kept: k / prefix length."""
        return [self.k / length for length in self.prefix_lengths]

    def select(self, indices: Sequence[int]) -> "StoredContext":
        """These contexts in this order; an index may occur several times (several questions about one context)."""
        return StoredContext(
            self.keys_LBHkE[:, list(indices)],
            self.values_LBHkE[:, list(indices)],
            tuple(self.next_positions[i] for i in indices),
            tuple(self.prefix_lengths[i] for i in indices),
            self.checkpoint,
        )

    def context(self, like: Tensor) -> Context:
        """As `Answerer.continue_from` reads it, on the device and in the precision of `like`."""
        keys, values = (list(tensor.to(like.device, like.dtype)) for tensor in (self.keys_LBHkE, self.values_LBHkE))
        return Context(keys, values, torch.ones((len(self), self.k), dtype=torch.bool, device=like.device), self.prefix_lengths)

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"keys": self.keys_LBHkE.cpu().contiguous(), "values": self.values_LBHkE.cpu().contiguous()}
        metadata = {
            "format": FORMAT,
            "checkpoint": self.checkpoint,
            "next_positions": json.dumps(self.next_positions),
            "prefix_lengths": json.dumps(self.prefix_lengths),
        }
        with atomic_file(path) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "StoredContext":
        """Read what `save` wrote.

        Raises:
            DataError: no such file, not a chorus cache, or one of another format version.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: found no such file; expected a chorus cache, as StoredContext.save writes it")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    found = metadata.get("format", "no format entry")
                    raise DataError(f"{path}: found {found}; expected {FORMAT}. Make it again with remember() of this version")
                numbers = [tuple(int(n) for n in json.loads(metadata[name])) for name in ("next_positions", "prefix_lengths")]
                return cls(file.get_tensor("keys"), file.get_tensor("values"), *numbers, metadata["checkpoint"])
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise DataError(f"{path}: found no readable chorus cache ({error}); expected one written by StoredContext.save") from error


def checkpoint_digest(checkpoint: str | Path, encoder: Encoder) -> str:
    """SHA-256 of what gives a stored cache its meaning: weights, configuration, tokenizer, template and chorus ids."""
    folder = Path(cached_file(str(checkpoint), "config.json")).parent
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    own = encoder.shortened(None).fingerprint()
    parts = {path.name: file_digest(path) for path in files} | {name: own[name] for name in ("tokenizer", "template", "chorus_ids")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
