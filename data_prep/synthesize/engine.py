"""A checkpoint that writes: opened by transformers, or by vLLM where that is installed and there is a GPU for it.

The transformers engine answers one request at a time, so that an answer is a function of checkpoint, request and seed alone, bit for
bit, however requests are grouped; that is slow on a GPU, where vLLM is for. vLLM takes each request's seed too, but batches as it sees
fit: its floating-point sums, and with them a sampled token here and there, may differ from run to run.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoModelForImageTextToText, GenerationConfig

from data_prep.samples import DataError
from data_prep.synthesize.dialect import Dialect, Reply, Request

EngineName = Literal["vllm", "transformers"]


class WriteSettings(BaseModel):
    """How the model writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(default=0.7, ge=0)
    """Of sampling; 0 always takes the likeliest token."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest question or answer in tokens; what is cut there is dropped as unfinished."""
    max_pixels: int | None = Field(default=1280 * 28 * 28, gt=0)
    """Largest image area the model is shown; None takes the checkpoint's own."""


class Engine(Protocol):
    """Writes a reply to every request, in order."""

    def write(self, requests: Sequence[Request]) -> list[Reply]: ...


def choose_engine(wanted: Literal["auto", "vllm", "transformers"]) -> EngineName:
    """`wanted`; auto is vLLM where it is installed beside a GPU, else transformers.

    Raises:
        DataError: vllm is wanted and not installed.
    """
    installed = find_spec("vllm") is not None
    if wanted == "vllm" and not installed:
        raise DataError(
            "--engine vllm: found no vllm in this environment; expected it installed (pip install vllm, in an environment of its own: "
            "it pins its own torch), or use --engine transformers"
        )
    if wanted == "auto":
        return "vllm" if installed and torch.cuda.is_available() else "transformers"
    return wanted


def open_engine(name: EngineName, checkpoint: str, settings: WriteSettings) -> Engine:
    """Load the checkpoint's weights."""
    if name == "vllm":
        from data_prep.synthesize.vllm_engine import VllmEngine  # optional: this is its only door

        return VllmEngine(checkpoint, settings)
    return TransformersEngine(checkpoint, settings)


class TransformersEngine:
    """transformers' own `generate`, one request at a time; float32 on a CPU, the checkpoint's precision on a GPU."""

    def __init__(self, checkpoint: str, settings: WriteSettings):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dialect = Dialect(checkpoint, settings.max_pixels)
        self.model = AutoModelForImageTextToText.from_pretrained(
            checkpoint,
            dtype=torch.float32 if self.device.type == "cpu" else "auto",
            use_safetensors=True,
            trust_remote_code=False,
        )
        self.model.to(self.device).eval()
        self.model.generation_config = _generation(settings, self.dialect)  # the checkpoint's own could ask for penalties or beams

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply to every request; an image that cannot be resized raises ValueError."""
        return [self._reply(request) for request in requests]

    @torch.no_grad()
    def _reply(self, request: Request) -> Reply:
        dialect = self.dialect
        image = dialect.images(images=list(request.pictures), return_tensors="pt")
        tokens = (image["image_grid_thw"].prod(dim=1) // dialect.images.merge_size**2).tolist()
        ids = torch.tensor([dialect.ids(request.text, tokens)])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == dialect.image_id).long()}
        inputs |= {"pixel_values": image["pixel_values"], "image_grid_thw": image["image_grid_thw"]}
        torch.manual_seed(request.seed)
        out = self.model.generate(**{name: tensor.to(self.device) for name, tensor in inputs.items()})
        new = out[0, ids.shape[1] :].tolist()
        return Reply(dialect.tokenizer.decode(new, skip_special_tokens=True).strip(), new[-1] in dialect.end_ids)


def _generation(settings: WriteSettings, dialect: Dialect) -> GenerationConfig:
    sampling = {"temperature": settings.temperature, "top_p": 1.0, "top_k": 0} if settings.temperature else {}
    banned = [[token] for token in (dialect.image_id, *dialect.chorus_ids)]
    return GenerationConfig(
        do_sample=bool(settings.temperature),
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=list(dialect.end_ids),
        pad_token_id=dialect.end_ids[0],
        bad_words_ids=banned,
        **sampling,
    )
