"""Figures from the literature to stand beside ours: data only, in percent, none of it run here.

Source of every number: Liu, Wang, Yang, Li et al., "CREM", arXiv 2602.19091 (Feb 2026), its tables of MMEB, of VLM
benchmarks, of the parts and of the number of chorus tokens. Invariant: whatever prints a row from here prints LABEL with it.

Two rows are kept as the source prints them although their "all" does not follow from their own parts: VLM2Vec 2B (its
parts give 60.1, not 59.3) and MMRet 7B (64.1, not 65.8).
"""

from typing import NamedTuple

LABEL = "published, not run here"
CITATION = 'Liu et al., "CREM: Compression-Driven Representation Enhancement", arXiv 2602.19091, 2026'

MMEB_SET_COUNTS = {"CLS": 10, "VQA": 10, "RET": 12, "GD": 4, "IND": 20, "OOD": 16, "all": 36}
"""How many data sets stand behind each published MMEB average."""


class MmebRow(NamedTuple):
    """Precision@1 in percent on MMEB's 36 sets, by average; None where the source gives none."""

    model: str
    backbone: str
    size: str
    CLS: float
    VQA: float
    RET: float
    GD: float
    IND: float | None
    OOD: float | None
    all: float


MMEB = (
    MmebRow("CLIP", "-", "0.4B", 55.2, 19.7, 53.2, 62.2, 47.6, 42.8, 45.4),
    MmebRow("OpenCLIP", "-", "0.4B", 56.0, 21.9, 55.4, 64.1, 50.5, 43.1, 47.2),
    MmebRow("VLM2Vec", "Qwen2-VL", "2B", 59.0, 49.4, 65.4, 73.4, 66.0, 52.6, 59.3),
    MmebRow("VLM2Vec-V2", "Qwen2-VL", "2B", 62.9, 56.3, 69.5, 77.3, 68.7, 60.1, 64.9),
    MmebRow("GME", "Qwen2-VL", "2B", 54.4, 29.9, 66.9, 55.5, None, None, 51.9),
    MmebRow("UNITE", "Qwen2-VL", "2B", 63.2, 55.9, 65.4, 75.6, 65.8, 60.1, 63.3),
    MmebRow("LLaVE", "Aquila-VL", "2B", 62.1, 60.2, 65.2, 84.9, 69.4, 59.8, 65.2),
    MmebRow("CAFe", "LLaVA-OV", "1B", 59.1, 49.1, 61.0, 83.0, 64.3, 53.7, 59.6),
    MmebRow("CREM", "Qwen2-VL", "2B", 65.8, 60.7, 68.3, 78.9, 70.8, 61.5, 66.7),
    MmebRow("MMRet", "LLaVA-1.6", "7B", 56.0, 57.4, 69.9, 83.6, 68.0, 59.1, 65.8),
    MmebRow("VLM2Vec", "Qwen2-VL", "7B", 62.6, 57.8, 69.9, 81.7, 72.2, 57.8, 65.8),
    MmebRow("UniME", "LLaVA-OV", "7B", 66.8, 66.6, 70.5, 90.9, None, None, 70.7),
    MmebRow("UNITE", "Qwen2-VL", "7B", 68.3, 65.1, 71.6, 84.8, 73.6, 66.3, 70.3),
    MmebRow("mmE5", "Llama-3.2-Vision", "11B", 67.6, 62.8, 70.9, 89.7, 72.3, 66.7, 69.8),
    MmebRow("CAFe", "LLaVA-OV", "7B", 65.2, 65.6, 70.0, 91.2, 75.8, 62.4, 69.8),
    MmebRow("CREM", "Qwen2-VL", "7B", 68.3, 69.4, 72.9, 86.1, 75.6, 67.8, 72.1),
)


class VlmRow(NamedTuple):
    """VLM benchmarks in percent, native generation; `avg` is the plain mean of the six."""

    model: str
    mmb: float
    mmvet: float
    ai2d: float
    hallusion: float
    mmmu: float
    mmstar: float
    avg: float


VLM = (
    VlmRow("Qwen2-VL-2B", 72.3, 45.7, 73.8, 41.9, 41.1, 46.1, 53.5),
    VlmRow("CREM_G 2B (generation only)", 73.1, 44.5, 72.9, 41.0, 41.2, 46.2, 53.2),
    VlmRow("CREM_R 2B (retrieval only)", 64.3, 17.3, 66.7, 33.6, 34.9, 43.9, 43.4),
    VlmRow("CREM 2B", 72.5, 45.1, 72.8, 41.2, 41.4, 45.5, 53.1),
    VlmRow("Qwen2-VL-7B", 80.9, 58.0, 82.2, 50.9, 53.7, 59.5, 64.2),
    VlmRow("CREM 7B", 80.5, 56.7, 81.9, 48.8, 52.1, 59.3, 63.2),
)


class ChorusRow(NamedTuple):
    """CREM 2B by number of chorus tokens, in percent; `chorus` None is end-of-sequence pooling."""

    chorus: int | None
    mmeb: float
    native: float
    compressed: float | None
    cache: float


CHORUS = (
    ChorusRow(None, 62.3, 43.4, None, 100.0),
    ChorusRow(1, 65.6, 51.9, 38.2, 0.07),
    ChorusRow(4, 66.1, 52.3, 41.7, 0.28),
    ChorusRow(8, 66.5, 52.5, 43.1, 0.56),
    ChorusRow(16, 66.7, 53.1, 44.2, 1.12),
    ChorusRow(32, 66.7, 52.9, 44.6, 2.24),
    ChorusRow(64, 66.6, 53.1, 46.2, 4.48),
)


class AblationRow(NamedTuple):
    """CREM 2B with parts left out, in percent; None where the source gives none."""

    variant: str
    mmeb: float
    native: float
    compressed: float | None


ABLATION = (
    AblationRow("retrieval only", 62.3, 43.4, None),
    AblationRow("generation only", 2.9, 53.2, None),
    AblationRow("both losses", 66.1, 47.2, None),
    AblationRow("CREM, K = 16", 66.7, 53.1, 44.2),
)
"""Its row "retrieval only" is CHORUS's row without chorus tokens."""
