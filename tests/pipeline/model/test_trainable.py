"""What trains, what is frozen, and what a plain checkpoint of it holds. (Ranks and ZeRO-3: `train/test_lora`.)"""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from data_prep.samples import Side, Turn
from pipeline.batches.collate import Job
from pipeline.config import LoraSettings, ModelSettings
from pipeline.model.crem import Crem, load_backbone
from pipeline.model.trainable import make_trainable, parameter_counts, plain_weights

LORA = ModelSettings(train="lora", lora=LoraSettings(rank=4, alpha=8))
TURNS = (Turn("what colour is it?", "red."),)


def build(checkpoint, settings: ModelSettings, seed: int = 0) -> Crem:
    return make_trainable(load_backbone(checkpoint, torch.float32), settings, seed)


def disturb(model: Crem) -> None:
    """Move everything that trains, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))


@pytest.fixture
def batch(collator, encoder, picture):
    """Text and image in one row, a question in each form."""
    sides = [Side("a red circle"), Side("what is it?", (picture(0),))]
    return collator([[Job(encoder.sequence(side, TURNS), compressed=i == 0) for i, side in enumerate(sides)]])


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        (ModelSettings(), {"vision": 75168, "language": 98624, "adapters": 0, "chorus": 256}),
        (ModelSettings(freeze_vision=True), {"vision": 0, "language": 98624, "adapters": 0, "chorus": 256}),
        (LORA, {"vision": 0, "language": 0, "adapters": 7424, "chorus": 256}),
        (LORA.model_copy(update={"freeze_vision": True}), {"vision": 0, "language": 0, "adapters": 7424, "chorus": 256}),
    ],
    ids=["full", "frozen vision", "lora", "lora, frozen vision"],
)
def test_what_trains(checkpoint, settings: ModelSettings, trained: dict) -> None:
    model = build(checkpoint, settings)
    counts = parameter_counts(model)
    assert {part: count["trained"] for part, count in counts.items()} == trained
    assert counts["vision"]["total"] == 75168 and counts["language"]["total"] == 98624
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == sum(trained.values())


def test_adapters_sit_on_every_linear_layer_of_the_language_model_alone(checkpoint) -> None:
    names = {name.split(".lora_A")[0] for name, _ in build(checkpoint, LORA).named_parameters() if ".lora_A" in name}
    attention = [f"self_attn.{name}_proj" for name in "qkvo"]
    expected = {f"backbone.model.language_model.layers.{i}.{name}" for i in (0, 1) for name in attention}
    expected |= {f"backbone.model.language_model.layers.{i}.mlp.{name}_proj" for i in (0, 1) for name in ("gate", "up", "down")}
    assert names == expected


def test_starts_as_the_checkpoint(checkpoint, batch) -> None:
    """B is zero and the rows are the embedding's: the same outputs; the seed moves the other factor alone."""
    plain, adapted = build(checkpoint, ModelSettings()).eval(), build(checkpoint, LORA).eval()
    with torch.no_grad():
        for ours, expected in zip(adapted(batch), plain(batch), strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
    again, other = build(checkpoint, LORA), build(checkpoint, LORA, seed=1)
    factors = {name: weight for name, weight in adapted.named_parameters() if ".lora_" in name}
    assert all(weight.equal(dict(again.named_parameters())[name]) for name, weight in factors.items())
    assert all(weight.equal(dict(other.named_parameters())[name]) == (".lora_B." in name) for name, weight in factors.items())


def test_plain_weights_are_the_checkpoints_names_and_open_there(checkpoint, batch) -> None:
    model = build(checkpoint, LORA).eval()
    disturb(model)
    plain = load_backbone(checkpoint, torch.float32)
    own = dict(plain.named_parameters())
    weights = dict(plain_weights(model))
    assert weights.keys() == own.keys()
    with torch.no_grad():
        before = Crem(plain).eval()(batch)
        for name, weight in weights.items():
            own[name].copy_(weight)
        merged, adapted = Crem(plain).eval()(batch), model(batch)
    for ours, expected, untrained in zip(merged, adapted, before, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
        assert (untrained - expected).abs().max() > 0.01


def test_an_untied_output_embedding_stays_as_it_is(checkpoint, batch, tmp_path) -> None:
    """As in the 7 B checkpoints: only the input rows are the chorus's."""
    config = AutoModelForImageTextToText.from_pretrained(checkpoint).config
    state = load_file(checkpoint / "model.safetensors")
    [embedding] = [name for name in state if name.endswith("embed_tokens.weight")]
    state["lm_head.weight"] = state[embedding] * 0.5
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    config.save_pretrained(tmp_path)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = build(tmp_path, LORA).eval()
    assert model.backbone.lm_head.weight is not model.backbone.get_input_embeddings().weight
    disturb(model)
    own = load_backbone(tmp_path, torch.float32)
    weights = dict(plain_weights(model))
    assert weights["lm_head.weight"].equal(own.lm_head.weight)
    with torch.no_grad():
        for name, weight in own.named_parameters():
            weight.copy_(weights[name])
        for ours, expected in zip(Crem(own).eval()(batch), model(batch), strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("settings", [LORA, ModelSettings(freeze_vision=True)], ids=["lora", "frozen vision"])
@pytest.mark.parametrize("blank", [True, False], ids=["blank", "full"])
def test_what_trains_gets_a_gradient_and_nothing_else(checkpoint, batch, collator, settings, checkpointing: bool, blank: bool) -> None:
    """Also where no input needs one, which re-entrant checkpointing would lose. None would leave ZeRO's ranks waiting."""
    model = build(checkpoint, settings).train()
    disturb(model)
    if checkpointing:
        model.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    embeddings, losses = model(collator([]) if blank else batch)
    (embeddings[:, 0].sum() + losses.sum()).backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name
        assert blank or weight.grad is None or weight.grad.abs().max() > 0, name


def test_recomputation_draws_the_same_dropout(checkpoint, batch) -> None:
    """Gradients with and without gradient checkpointing, from one seed; another seed is the control."""
    settings = ModelSettings(train="lora", lora=LoraSettings(rank=4, dropout=0.3))
    gradients = []
    for checkpointing, seed in ((False, 5), (True, 5), (True, 6)):
        model = build(checkpoint, settings).train()
        disturb(model)
        if checkpointing:
            model.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        torch.manual_seed(seed)
        embeddings, losses = model(batch)
        (embeddings[:, 0].sum() + losses.sum()).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.requires_grad]))
    kept, recomputed, other = gradients
    assert (recomputed - kept).abs().max() <= 1e-5 * kept.abs().max()
    assert (other - kept).abs().max() > 1e-3 * kept.abs().max()
