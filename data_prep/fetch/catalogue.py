"""Which corpora `fetch` knows: where they lie, at which revision, which files are wanted, and what unpacks where.

A revision stands here only if that commit was seen on the repository's own page or in a published script; elsewhere it is None, and
`main` is resolved to a commit when the download begins, which the folder's `fetched.json` records. `{part}` in a pattern stands for every
part of the corpus, or for those asked for. Layouts and md5 sums: the projects' own loaders (VLM2Vec, mmE5, VLMEvalKit).
"""

from pydantic import BaseModel, ConfigDict, Field

from data_prep.samples import DataError


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(_Entry):
    """Archives of a repository (`pattern`), unpacked into the subfolder `into` of the corpus."""

    pattern: str
    into: str = Field(pattern=r"^[\w-]+(/[\w-]+)*$")


class Repository(_Entry):
    """A dataset repository on the Hub: `files` are kept as they lie, `archives` are unpacked."""

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    files: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()


class WebFile(_Entry):
    """One file from a web server, with its md5 digest."""

    part: str
    url: str = Field(pattern=r"^https?://")
    md5: str = Field(pattern=r"^[0-9a-f]{32}$")

    @property
    def name(self) -> str:
        """The file's name in the corpus folder."""
        return self.url.rsplit("/", 1)[1]


class Corpus(_Entry):
    """What one name fetches. `folder` is made below --out; `elsewhere` says what fetch cannot get, and where to put it."""

    name: str
    folder: str = Field(pattern=r"^[\w-]+$")
    about: str
    parts: tuple[str, ...] = ()
    repositories: tuple[Repository, ...] = ()
    web: tuple[WebFile, ...] = ()
    elsewhere: str = ""

    def chosen(self, only: tuple[str, ...]) -> tuple[str, ...]:
        """The parts asked for, in the catalogue's order; all without `only`.

        Raises:
            DataError: a part that the corpus does not have.
        """
        unknown = [part for part in only if part not in self.parts]
        if unknown:
            has = f"expected some of {', '.join(self.parts)}" if self.parts else "it has no parts; leave --only out"
            raise DataError(f"--only: found {', '.join(unknown)}, which {self.name} does not have; {has}")
        return tuple(part for part in self.parts if not only or part in only)


_SUBSETS = (
    "ImageNet_1K N24News HatefulMemes VOC2007 SUN397 OK-VQA A-OKVQA DocVQA InfographicsVQA ChartQA Visual7W VisDial CIRR VisualNews_t2i "
    "VisualNews_i2t MSCOCO_t2i MSCOCO_i2t NIGHTS WebQA MSCOCO"
)
MMEB_SUBSETS = tuple(_SUBSETS.split())
"""The 20 training subsets (formats: TIGER-Lab/MMEB-train)."""

_MME5_EXTRA = ("TAT-DQA", "ArxivQA", "InfoSeek_it2t", "InfoSeek_it2it")
_SHAREGPT4V = (
    "sharegpt4v_instruct_gpt4-vision_cap100k",
    "share-captioner_coco_lcs_sam_1246k_1107",
    "sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k",
)
_VLMEVAL = "https://opencompass.openxlab.space/utils/VLMEval"
_BENCHMARKS = (
    ("https://opencompass.openxlab.space/utils/benchmarks/MMBench/MMBench_DEV_EN.tsv", "b6caf1133a01c6bb705cf753bb527ed8"),
    ("https://opencompass.openxlab.space/utils/benchmarks/MMBench/MMBench_DEV_EN_V11.tsv", "30c05be8f2f347a50be25aa067248184"),
    (f"{_VLMEVAL}/AI2D_TEST.tsv", "0f593e0d1c7df9a3d69bf1f947e71975"),
    (f"{_VLMEVAL}/MMStar.tsv", "e1ecd2140806c1b1bbf54b43372efb9e"),
    (f"{_VLMEVAL}/HallusionBench.tsv", "0c23ac0dc9ef46832d7a24504f2a0c7c"),
    (f"{_VLMEVAL}/MMVet.tsv", "748aa6d4aa9d4de798306a63718455e3"),
    (f"{_VLMEVAL}/MMMU_DEV_VAL.tsv", "585e8ad75e73f75dcad265dfd0417d64"),
)

_CORPORA = (
    Corpus(
        name="mmeb-train",
        folder="MMEB-train",
        about="contrastive pairs, 20 subsets, splits original and diverse_instruction (Apache-2.0)",
        parts=MMEB_SUBSETS,
        repositories=(
            Repository(
                repo="TIGER-Lab/MMEB-train",
                revision="76dd0a440b6d4c02776830a804443fffbb2d0bfa",
                files=("{part}/original-*.parquet", "{part}/diverse_instruction-*.parquet"),
                archives=(Archive(pattern="images_zip/{part}.zip", into="images"),),
            ),
        ),
    ),
    Corpus(
        name="mmeb-eval",
        folder="MMEB-eval",
        about="36 ranking tasks of 1000 queries each",
        repositories=(
            Repository(
                repo="TIGER-Lab/MMEB-eval",
                revision="2f069730be515ea60778413777816b53e2d2a697",
                files=("*/test-*.parquet",),
                archives=(Archive(pattern="images.zip", into="eval_images"),),
            ),
        ),
    ),
    Corpus(
        name="mmeb-test-instruct",
        folder="MMEB-Test-Instruct",
        about="the same 36 tasks with instructions in columns of their own, images of MMEB-V2",
        repositories=(
            Repository(repo="ziyjiang/MMEB_Test_Instruct", files=("*/test-*.parquet",)),
            Repository(
                repo="TIGER-Lab/MMEB-V2",
                revision="e7bbfeb69a70dfe32ff36da3d6d8dbe31fc36af1",
                archives=(Archive(pattern="image-tasks/mmeb_v1.tar.gz", into="images"),),
            ),
        ),
    ),
    Corpus(
        name="mme5-hardneg",
        folder="mmE5-MMEB-hardneg",
        about="MMEB-train with several mined negatives per row, and four more subsets; split train",
        parts=MMEB_SUBSETS + _MME5_EXTRA,
        repositories=(
            Repository(
                repo="intfloat/mmE5-MMEB-hardneg",
                files=("{part}/*.parquet",),
                archives=(Archive(pattern="supplement_images_zip/*.tar.gz", into="images"),),
            ),
        ),
        elsewhere="Its rows name images of MMEB-train: fetch mmeb-train to the same --out as well. InfoSeek_it2t and InfoSeek_it2it need "
        "oven_images of TIGER-Lab/M-BEIR (mbeir_images.tar.gz in four pieces): unpack it into mmE5-MMEB-hardneg/images, or leave them out "
        "with --only. Prepare with --split train.",
    ),
    Corpus(
        name="mme5-synthetic",
        folder="mmE5-synthetic",
        about="synthetic pairs in 93 languages over LAION images; split train",
        parts=("Classification", "Retrieval", "VQA"),
        repositories=(
            Repository(
                repo="intfloat/mmE5-synthetic",
                files=("{part}/*.parquet",),
                archives=(Archive(pattern="LAION_Synthetic.tar.gz", into="images"),),
            ),
        ),
        elsewhere="Prepare with --split train.",
    ),
    Corpus(
        name="sharegpt4v",
        folder="sharegpt4v",
        about="captions and conversations, three json files (CC-BY-NC-4.0); without images",
        parts=_SHAREGPT4V,
        repositories=(
            Repository(
                repo="Lin-Chen/ShareGPT4V",
                revision="55d02b0bc53a2754095a14110dda6daedd95671d",
                files=("{part}.json",),
            ),
        ),
        elsewhere="The images come from their owners; put them into sharegpt4v/ under the paths that the json files state: "
        "coco/train2017 (COCO 2017 train), sam/images (SA-1B, the files named in the json), llava/llava_pretrain/images (LLaVA-Pretrain "
        "558k), and for the mix665k file also gqa/images, ocr_vqa/images (all saved as .jpg), textvqa/train_images, vg/VG_100K, "
        "vg/VG_100K_2, share_textvqa/images, web-celebrity/images, web-landmark/images, wikiart/images. ShareGPT4V's docs/Data.md links "
        "each. Rows whose image is missing are set aside: see with check how many, and set --max-reject-share.",
    ),
    Corpus(
        name="vlmevalkit",
        folder="LMUData",
        about="seven benchmark files (VLMEvalKit's TSVs) of the six benchmarks the paper reports",
        parts=tuple(url.rsplit("/", 1)[1].removesuffix(".tsv") for url, _ in _BENCHMARKS),
        web=tuple(WebFile(part=url.rsplit("/", 1)[1].removesuffix(".tsv"), url=url, md5=md5) for url, md5 in _BENCHMARKS),
    ),
)
CATALOGUE = {corpus.name: corpus for corpus in _CORPORA}


def corpus(name: str) -> Corpus:
    """The corpus of this name.

    Raises:
        DataError: there is none; names those there are.
    """
    if name not in CATALOGUE:
        raise DataError(f"fetch: found the name {name!r}; expected one of {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def listing() -> str:
    """The catalogue for a person: names, what they are, and where they come from."""
    lines = []
    for entry in CATALOGUE.values():
        lines.append(f"{entry.name:20} {entry.about}")
        lines += [f"{'':22}{source.repo} @ {source.revision or 'main, resolved when fetched'}" for source in entry.repositories]
        lines += [f"{'':22}{file.url}" for file in entry.web]
    return "\n".join(lines)
