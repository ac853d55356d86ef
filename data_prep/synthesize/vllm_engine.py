"""The only file that imports vllm; `engine.open_engine` opens it."""

from collections.abc import Sequence

from vllm import LLM, SamplingParams

from data_prep.synthesize.dialect import Dialect, Reply, Request
from data_prep.synthesize.engine import WriteSettings


class VllmEngine:
    """vLLM's offline engine on one GPU: all requests at once, each with its own seed."""

    def __init__(self, checkpoint: str, settings: WriteSettings):
        self.settings = settings
        self.dialect = Dialect(checkpoint, settings.max_pixels)
        size = self.dialect.images.size
        self.llm = LLM(
            model=checkpoint,
            trust_remote_code=False,
            limit_mm_per_prompt={"image": 1},
            mm_processor_kwargs={"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]},
        )

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply to every request."""
        # one placeholder: vLLM multiplies it by the image's tokens
        prompts = [{"prompt_token_ids": self.dialect.ids(r.text), "multi_modal_data": {"image": r.picture}} for r in requests]
        outputs = self.llm.generate(prompts, [self._sampling(request.seed) for request in requests], use_tqdm=False)
        first = [output.outputs[0] for output in outputs]
        return [Reply(one.text.strip(), one.finish_reason == "stop") for one in first]

    def _sampling(self, seed: int) -> SamplingParams:
        return SamplingParams(
            temperature=self.settings.temperature,
            top_p=1.0,
            top_k=-1,
            max_tokens=self.settings.max_new_tokens,
            seed=seed,
            stop_token_ids=list(self.dialect.end_ids),
        )
