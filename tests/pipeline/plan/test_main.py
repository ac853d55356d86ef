"""The command: what it prints, what it refuses, and its exit status."""

import pytest

from pipeline.plan.__main__ import main


@pytest.fixture
def plan(capsys):
    def run(*words: str) -> tuple[int, str, str]:
        status = main(list(words))
        return status, *capsys.readouterr()

    return run


def test_crem_2b_fits_on_eight_gpus(plan):
    status, out, _ = plan("crem_2b", "--nodes", "1", "--gpus", "8")
    assert status == 0
    for line in (
        "model Qwen2-VL-2B (published sizes): 2,208,985,600 parameters, 2,208,985,600 train; 16 chorus tokens",
        "662,000 rows in 1,293 shards; 2,048,000 pairs are drawn in 2,000 steps",
        "step   1024 pairs and 256 conversations over 8 GPUs: 1,195,008 tokens, 80% of them of images; 10 chunks of 16384 tokens a GPU",
        "ds_configs/zero3_bf16.json: ZeRO-3, bf16; 1 x 8 GPUs of 80 GiB",
        "45.4 s a step, 25.2 hours in all, 202 GPU hours",
    ):
        assert line in out
    assert "fits" in out and "DOES NOT FIT" not in out and "assumed: 1.2 images of 640 tokens" in out
    assert all(f"\n  {name} " in out for name in ("ZeRO-1", "ZeRO-2", "ZeRO-3", "ZeRO-3, offloaded"))


def test_what_does_not_fit_and_what_would_make_it_fit(plan):
    status, out, _ = plan("crem_7b", "--gpus", "8", "--gpu-memory", "24")
    assert status == 1 and "DOES NOT FIT" in out
    hint = next(line for line in out.splitlines() if "it would fit with:" in line)
    assert "ZeRO-3, offloaded in --deepspeed" in hint
    chunk = ["--model.no-gradient-checkpointing", "--gpu-memory", "48"]
    status, out, _ = plan("crem_2b", *chunk)
    hint = next(line for line in out.splitlines() if "it would fit with:" in line)
    assert status == 1 and "--batch.chunk-tokens 4096" in hint and "--model.gradient-checkpointing" in hint
    # and so it does
    assert plan("crem_2b", *chunk, "--batch.chunk-tokens", "4096")[0] == 0


def test_pairs_that_do_not_divide(plan):
    status, out, _ = plan("crem_2b", "--nodes", "3", "--gpus", "8")
    assert status == 1 and "batch.pairs = 1024 does not divide over 24 GPUs: the nearest that do are 1008 and 1032" in out
    status, out, _ = plan("crem_2b", "--gpus", "4", "--deepspeed", "ds_configs/zero3_bf16_multinode.json")
    assert status == 1 and "zero_hpz_partition_size = 8 does not divide 4 GPUs" in out


def test_prepared_shards_are_read(plan, shards, checkpoint):
    batch = ["--batch.pairs", "8", "--batch.sub-batch", "4", "--batch.conversations", "2"]
    status, out, _ = plan("tiny", "--gpus", "2", "--model.checkpoint", str(checkpoint), "--data.shards", str(shards), *batch)
    assert status == 0 and f"{shards}: lengths of all 29 rows" in out and "29 rows in 7 shards" in out
    assert "ZeRO-0" in out  # float32: nothing need be sharded


def test_bad_input_ends_with_2(plan, capsys):
    status, _, err = plan("crem_2b", "--model.checkpoint", "work/llava")
    assert status == 2 and err.startswith("error: work/llava: found no such folder")
    for words in (["crem_2b", "--gpus", "0"], ["crem_2b", "--utilisation", "inf"], ["crem_2b", "--batch.pears", "1"], ["nothing"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
