"""A small checkpoint that was taught to ask and to answer, and what it is asked."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from data_prep.synthesize.author import Job
from data_prep.synthesize.dialect import Dialect
from data_prep.synthesize.engine import WriteSettings
from data_prep.synthesize.prompts import load_prompts

LESSONS = {
    "what colour is the largest shape?": "red.",
    "represent the given image.": "what colour is the circle?",
    "what colour is the circle?": "the circle is blue.",
}
PROMPTS = """
[[prompt]]
id = "fixed"
question = "what colour is the largest shape?"

[[prompt]]
id = "asked"
ask = "represent the given image."
"""


@pytest.fixture(scope="session")
def talker(base_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base_checkpoint` after some seconds of `LESSONS` about noise: it ends what it says, as a random model does not."""
    folder = tmp_path_factory.mktemp("talker") / "talker"
    torch.manual_seed(0)
    dialect = Dialect(str(base_checkpoint))
    model = AutoModelForImageTextToText.from_pretrained(base_checkpoint, dtype=torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(150):
        question, answer = list(LESSONS.items())[step % len(LESSONS)]
        noise = Image.frombytes("RGB", (56, 56), torch.randint(256, (56 * 56 * 3,), dtype=torch.uint8).numpy().tobytes())
        image = dialect.images(images=[noise], return_tensors="pt")
        prompt = dialect.ids(question, [4])
        said = [*dialect.tokenizer(answer, add_special_tokens=False).input_ids, *dialect.end_ids]
        ids = torch.tensor([[*prompt, *said]])
        labels = torch.tensor([[-100] * len(prompt) + said])
        kinds = (ids == dialect.image_id).long()
        model(input_ids=ids, labels=labels, mm_token_type_ids=kinds, **image).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json"):
        if (base_checkpoint / name).is_file():
            (folder / name).write_bytes((base_checkpoint / name).read_bytes())
    return folder


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One fixed question, one that the model writes."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.toml"
    path.write_text(PROMPTS)
    return path


@pytest.fixture(scope="session")
def job(talker: Path, prompt_file: Path) -> Job:
    """What authors are told in these tests: the likeliest token always."""
    write = WriteSettings(temperature=0, max_new_tokens=24)
    return Job(str(talker), "transformers", write, load_prompts(prompt_file), "auto", seed=0)
