"""Ids against Hugging Face `tokenizers`, and the cache against every way it can be damaged."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from safetensors import safe_open
from safetensors.numpy import save_file
from tokenizers import models, pre_tokenizers, trainers

from freemvmt.data.tokenizer import PROBE, Tokenizer
from freemvmt.errors import UserError

from rows import make_rows

TEXTS = ["the quick brown fox", "", "naïve café", "the quick brown fox", "x " * 40]


@pytest.fixture(scope="module")
def definition(packaged: Path) -> str:
    return (packaged / "tokenizer.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer(definition: str) -> Tokenizer:
    return Tokenizer(definition, 256)


def with_normalizer(definition: str, change: dict[str, bool]) -> str:
    parts = json.loads(definition)
    parts["normalizer"] |= change
    return json.dumps(parts)


def reference_ids(definition: str, texts: list[str]) -> list[list[int]]:
    reference = tokenizers.Tokenizer.from_str(definition)
    reference.no_truncation()
    reference.no_padding()
    return [reference.encode(text, add_special_tokens=False).ids for text in texts]


def ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    tokens = tokenizer.encode(texts)
    assert tokens.ids.dtype == np.int32
    assert tokens.offsets.dtype == np.int64
    return [tokens[number].tolist() for number in range(len(tokens))]


def random_unicode(count: int, seed: int) -> list[str]:
    """Texts of characters from all over Unicode, among words, spaces and special tokens."""
    draw = random.Random(seed)
    blocks = [(0, 0x80), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0x980), (0x2000, 0x2070),
              (0x20A0, 0x2200), (0x3000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xE000, 0xFB50),
              (0xFE00, 0x10000), (0x1F300, 0x1FA00), (0x20000, 0x2A6E0), (0xE0000, 0x110000)]  # fmt: skip
    words = ["running", "[MASK]", "##ing", "[CLS]", "İ", "ß", " ", "\t", "don't"]

    def piece() -> str:
        return draw.choice(words) if draw.random() < 0.2 else chr(draw.randrange(*draw.choice(blocks)))

    return ["".join(piece() for _ in range(draw.randrange(60))) for _ in range(count)]


def english(count: int) -> list[str]:
    draw = random.Random(0)
    passages = [text for row in make_rows(count) for text in row["passages"]["passage_text"]]
    return [f"{text.capitalize()}{draw.choice('.!?,;')} It's {draw.random():.3f} ({text[::-1]})." for text in passages]


@pytest.mark.parametrize(
    "texts", [list(PROBE), random_unicode(300, 0), english(100)], ids=["probe", "unicode", "english"]
)
def test_ids_equal_those_of_tokenizers(tokenizer: Tokenizer, definition: str, texts: list[str]) -> None:
    assert tokenizer.engine == "nanotoken"
    assert ids(tokenizer, texts) == reference_ids(definition, texts)


@pytest.mark.parametrize(
    "change",
    [{"lowercase": False}, {"strip_accents": False}, {"handle_chinese_chars": False}, {"clean_text": False}],
    ids=str,
)
def test_ids_equal_those_of_tokenizers_for_other_normalizers(definition: str, change: dict[str, bool]) -> None:
    changed, texts = with_normalizer(definition, change), [*PROBE, *random_unicode(50, 1)]
    assert ids(Tokenizer(changed, 256), texts) == reference_ids(changed, texts)
    assert reference_ids(changed, texts) != reference_ids(definition, texts)


def bpe() -> str:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(english(20), trainer)
    tokenizer.enable_truncation(3)  # as published ones often come
    tokenizer.enable_padding(length=9)
    return tokenizer.to_str()


def word_level() -> str:
    words = {"[UNK]": 0, "the": 1, "fox": 70}  # ids with a gap
    tokenizer = tokenizers.Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer.to_str()


@pytest.mark.parametrize("make", [bpe, word_level])
def test_what_nanotoken_does_not_support_goes_through_tokenizers(make: Callable[[], str], tmp_path: Path) -> None:
    unsupported, texts = make(), [*english(20), *PROBE, *TEXTS]
    tokenizer = Tokenizer(unsupported, 7)
    assert tokenizer.engine == "tokenizers"
    assert ids(tokenizer, texts) == [row[:7] for row in reference_ids(unsupported, texts)]
    tokenizer.encode_cached(texts, tmp_path)
    cached = tokenizer.encode_cached(texts, tmp_path)
    assert is_mapped(tmp_path)
    assert cached.ids.max() < tokenizer.vocabulary_size


@pytest.mark.parametrize("length", [1, 3, 256])
def test_the_first_max_length_tokens_are_kept(definition: str, length: int) -> None:
    texts = ["one two three four five", "antidisestablishmentarianism", "word " * 300, ""]
    assert ids(Tokenizer(definition, length), texts) == [row[:length] for row in reference_ids(definition, texts)]


def test_no_texts_give_no_lists(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode([])) == 0
    assert len(tokenizer.encode(["", " "]).ids) == 0


def test_a_lone_surrogate_counts_as_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert ids(tokenizer, ["a \ud800 b", "c\udfff", "d"]) == ids(tokenizer, ["a \ufffd b", "c\ufffd", "d"])


def test_what_is_no_text_is_named_by_its_number(tokenizer: Tokenizer) -> None:
    with pytest.raises(TypeError, match="text 1 is int"):
        tokenizer.encode(["a", 3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "{}",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"WordPiece"', '"Nothing"'),
        lambda text: text.replace('"[UNK]": 100', '"[UMK]": 100').replace('"[UNK]":100', '"[UMK]":100'),
    ],
    ids=["cut", "no model", "nested", "unknown model", "no unknown token"],
)
def test_a_broken_tokenizer_is_an_error_that_names_the_file(
    definition: str, tmp_path: Path, damage: Callable[[str], str]
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(damage(definition), encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read .* give a sound tokenizer\.json"):
        Tokenizer.from_file(path, 256)


def test_a_tokenizer_that_is_not_text_or_not_there_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe{}")
    for name in ("binary.json", "missing.json"):
        with pytest.raises(UserError, match=name):
            Tokenizer.from_file(tmp_path / name, 256)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_mapped(folder: Path) -> bool:
    """Whether this process maps the one entry of ``folder`` into its memory, rather than holding a copy."""
    (name,) = entries(folder)
    return str(folder / name) in Path("/proc/self/maps").read_text()


def test_the_second_reading_is_equal_and_mapped(
    tokenizer: Tokenizer, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    first = tokenizer.encode_cached(TEXTS, tmp_path / "new" / "folder")
    second = tokenizer.encode_cached(TEXTS, tmp_path / "new" / "folder")
    assert is_mapped(tmp_path / "new" / "folder")
    for found in (first, second):
        np.testing.assert_array_equal(found.ids, tokenizer.encode(TEXTS).ids)
        np.testing.assert_array_equal(found.offsets, tokenizer.encode(TEXTS).offsets)
    assert not log.messages


@pytest.mark.parametrize("texts", [[], [""], ["", " "]], ids=str)
def test_texts_without_tokens_are_cached_too(
    tokenizer: Tokenizer, tmp_path: Path, texts: list[str], log: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert len(tokenizer.encode_cached(texts, tmp_path)) == len(texts)
    assert not log.messages


def test_other_texts_another_length_or_another_tokenizer_have_an_entry_of_their_own(
    definition: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    others = [
        (tokenizer, TEXTS),
        (tokenizer, ["The quick brown fox", *TEXTS[1:]]),
        (tokenizer, TEXTS[:-1]),
        (Tokenizer(definition, 255), TEXTS),
        (Tokenizer(with_normalizer(definition, {"lowercase": False}), 256), TEXTS),
    ]
    for number, (maker, texts) in enumerate(others, start=1):
        found = maker.encode_cached(texts, tmp_path)
        np.testing.assert_array_equal(found.ids, maker.encode(texts).ids)
        assert len(entries(tmp_path)) == number


def test_lists_that_join_to_one_string_have_entries_of_their_own(tokenizer: Tokenizer, tmp_path: Path) -> None:
    lists = [["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"]]
    for texts in lists:
        found = tokenizer.encode_cached(texts, tmp_path)
        np.testing.assert_array_equal(found.offsets, tokenizer.encode(texts).offsets)
    assert len(entries(tmp_path)) == len(lists)


def test_the_key_depends_on_texts_beyond_the_first_block(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = ["word"] * 5000
    tokenizer.encode_cached(texts, tmp_path)
    tokenizer.encode_cached([*texts[:-1], "other"], tmp_path)
    assert len(entries(tmp_path)) == 2


def flipped(sound: bytes) -> Iterator[bytes]:
    for place in range(0, len(sound), 5):
        if sound[place : place + 1] != b" ":  # the padding of the header, which holds nothing
            yield sound[:place] + bytes([sound[place] ^ 0x55]) + sound[place + 1 :]


def cut(sound: bytes) -> Iterator[bytes]:
    yield from (sound[:length] for length in range(0, len(sound), 20))


@pytest.mark.parametrize("damage", [flipped, cut])
def test_a_damaged_entry_is_noticed_and_made_anew(
    tokenizer: Tokenizer,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
    damage: Callable[[bytes], Iterator[bytes]],
) -> None:
    want = tokenizer.encode_cached(TEXTS, tmp_path)
    file = tmp_path / entries(tmp_path)[0]
    sound = file.read_bytes()
    for damaged in damage(sound):
        file.unlink()  # a file that is mapped does not change
        file.write_bytes(damaged)
        for said in (["WARNING"], []):  # noticed once, then mended
            log.clear()
            found = tokenizer.encode_cached(TEXTS, tmp_path)
            np.testing.assert_array_equal(found.ids, want.ids)
            np.testing.assert_array_equal(found.offsets, want.offsets)
            assert [record.levelname for record in log.records] == said
        assert sorted(file.read_bytes()) == sorted(sound)  # the two entries of the header stand in either order


def test_an_entry_whose_texts_begin_elsewhere_is_made_anew(tokenizer: Tokenizer, tmp_path: Path) -> None:
    want = tokenizer.encode_cached(TEXTS, tmp_path)
    path = tmp_path / entries(tmp_path)[0]
    with safe_open(path, framework="np") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in ("ids", "offsets")}
    arrays["offsets"][1] -= 1
    save_file(arrays, path, metadata)
    np.testing.assert_array_equal(tokenizer.encode_cached(TEXTS, tmp_path).offsets, want.offsets)


def test_an_entry_under_the_name_of_another_is_made_anew(tokenizer: Tokenizer, tmp_path: Path) -> None:
    want = tokenizer.encode_cached(TEXTS, tmp_path / "large")
    small = Tokenizer(word_level(), 256)
    small.encode_cached(TEXTS, tmp_path / "small")
    foreign, own = (next((tmp_path / name).iterdir()) for name in ("large", "small"))
    own.write_bytes(foreign.read_bytes())
    assert small.encode_cached(TEXTS, tmp_path / "small").ids.max() < small.vocabulary_size < want.ids.max()


@pytest.mark.parametrize("where", ["folder", "entry"])
def test_what_is_in_the_way_only_costs_the_time(
    tokenizer: Tokenizer, tmp_path: Path, log: pytest.LogCaptureFixture, where: str
) -> None:
    folder = tmp_path / "cache"
    if where == "folder":
        folder.write_text("in the way")
    else:
        tokenizer.encode_cached(TEXTS, tmp_path)
        (folder / entries(tmp_path)[0]).mkdir(parents=True)
    np.testing.assert_array_equal(tokenizer.encode_cached(TEXTS, folder).ids, tokenizer.encode(TEXTS).ids)
    assert any("nothing is kept for the next run" in message for message in log.messages)
