"""The usual way to move the processor out of the training loop: datasets.map(num_proc=N), float16 patches, save_to_disk.

Run by `prepare_speed`; prints the seconds of map, and of map and save_to_disk. Written as a practitioner would: the checkpoint's image
processor and tokenizer do what transformers' Qwen2VLProcessor does with them (patches, one placeholder a merged patch, chat template).
That class itself asks for torchvision, for the sake of videos.
"""

import sys
import time
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import AutoTokenizer

from data_prep.checkpoint import load_config, load_image_processor
from data_prep.sources import Part, discover, read

BATCH = 32
FEATURES = {
    "input_ids": datasets.List(datasets.List(datasets.Value("int32"))),
    "image_grid_thw": datasets.List(datasets.List(datasets.Value("int32"))),
}


class Encode:
    """A batch of rows -> model inputs; `datasets` pickles it to its processes."""

    def __init__(self, checkpoint: str, low: int, high: int):
        config = load_config(checkpoint)
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.images = load_image_processor(checkpoint, config)
        size = self.images.size
        self.limits = {"shortest_edge": low or size["shortest_edge"], "longest_edge": high or size["longest_edge"]}
        self.pad = self.tokenizer.convert_ids_to_tokens(config.image_token_id)
        self.width = 3 * self.images.temporal_patch_size * self.images.patch_size**2

    def __call__(self, rows: dict) -> dict:
        torch.set_num_threads(1)
        out: dict[str, list] = {"input_ids": [], "image_grid_thw": [], "pixel_values": []}
        for texts, paths in zip(rows["texts"], rows["paths"], strict=True):
            ids, grids, pixels = [], [], [np.zeros((0, self.width), np.float16)]
            for text, own in zip(texts, paths, strict=True):
                found = [self.images(images=[_open(path)], size=self.limits, return_tensors="np") for path in own]
                own_grids = [image["image_grid_thw"][0] for image in found]
                pixels += [image["pixel_values"].astype(np.float16) for image in found]
                grids += own_grids
                ids.append(self._ids(text, [int(grid.prod()) // self.images.merge_size**2 for grid in own_grids]))
            out["input_ids"].append(ids)
            out["image_grid_thw"].append(grids)
            out["pixel_values"].append(np.concatenate(pixels))
        return out

    def _ids(self, text: str, tokens: list[int]) -> list[int]:
        content = [{"type": "image"}] * len(tokens) + [{"type": "text", "text": text}]
        prompt = self.tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
        pieces = prompt.split(self.pad)
        expanded = "".join(piece + self.pad * count for piece, count in zip(pieces, [*tokens, 0], strict=True))
        return self.tokenizer(expanded).input_ids


def _open(path: str) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def main(root: str, images: str, checkpoint: str, processes: str, low: str, high: str, out: str) -> None:
    """Map and save; prints the seconds of map, and of both together."""
    datasets.disable_progress_bars()
    datasets.disable_caching()
    rows = [row for part in discover(Path(root), Path(images)) for row in _rows(part)]
    source = datasets.Dataset.from_list(rows)
    encode = Encode(checkpoint, int(low), int(high))
    features = datasets.Features(FEATURES | {"pixel_values": datasets.Array2D((None, encode.width), "float16")})
    options = dict(batched=True, batch_size=BATCH, num_proc=int(processes), remove_columns=source.column_names, features=features)
    start = time.perf_counter()
    done = source.map(encode, **options)
    mapped = time.perf_counter()
    done.save_to_disk(out)  # its processes would start from nothing and import everything: on thousands of rows, slower than one
    print(mapped - start, time.perf_counter() - start)


def _rows(part: Part) -> list[dict]:
    """One row's sides: texts, and the pictures' paths of each."""
    out = []
    for raw in read(part, 0, part.rows):
        sides = [side for side in (raw.query, raw.positive, *raw.negatives) if side is not None]
        paths = [[str(image.root / image.name) for image in side.images] for side in sides]
        out.append({"texts": [side.text for side in sides], "paths": paths})
    return out


if __name__ == "__main__":
    main(*sys.argv[1:])
