"""The only file that imports vllm; `engine.open_engine` opens it."""

from collections.abc import Sequence

from vllm import LLM, SamplingParams

from data_prep.synthesize.dialect import Dialect, Reply, Request
from data_prep.synthesize.engine import WriteSettings

MOST_IMAGES = 8
"""Images a side may have; MMEB's have one."""


class VllmEngine:
    """vLLM's offline engine on one GPU: all requests at once, each with its own seed."""

    def __init__(self, checkpoint: str, settings: WriteSettings):
        self.settings = settings
        self.dialect = Dialect(checkpoint, settings.max_pixels)
        size = self.dialect.images.size
        self.llm = LLM(
            model=checkpoint,
            trust_remote_code=False,
            limit_mm_per_prompt={"image": MOST_IMAGES},
            mm_processor_kwargs={"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]},
        )

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply to every request."""
        outputs = self.llm.generate(
            [self._prompt(request) for request in requests], [self._sampling(request.seed) for request in requests], use_tqdm=False
        )
        first = [output.outputs[0] for output in outputs]
        return [Reply(one.text.strip(), one.finish_reason == "stop") for one in first]

    def _prompt(self, request: Request) -> dict:
        # one placeholder an image: vLLM multiplies it by the image's tokens
        ids = self.dialect.ids(request.text, [1] * len(request.pictures))
        return {"prompt_token_ids": ids, "multi_modal_data": {"image": list(request.pictures)}}

    def _sampling(self, seed: int) -> SamplingParams:
        return SamplingParams(
            temperature=self.settings.temperature,
            top_p=1.0,
            top_k=-1,
            max_tokens=self.settings.max_new_tokens,
            seed=seed,
            stop_token_ids=list(self.dialect.end_ids),
        )
