"""Which token of a fixed text is forced: the tokenizer's own, found in its head, and never one that does not fit."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.engines.process import demo_model
from workers.engines.textgen.forms import Text
from workers.engines.textgen.guide import Guide, Vocabulary

WORDS = st.text(st.sampled_from("ab e1.,{}\"'\n é你🙂e\u0301"), min_size=1, max_size=40)


class FastTokenizer:
    """As much of transformers' tokenizer as a vocabulary needs, which remembers how much it was given."""

    all_special_ids: tuple[int, ...] = ()

    def __init__(self, file: Path) -> None:
        self.backend_tokenizer = Tokenizer.from_file(str(file))
        self.added_tokens_decoder = self.backend_tokenizer.get_added_tokens_decoder()
        self.given: list[int] = []

    def get_vocab(self) -> dict[str, int]:
        return self.backend_tokenizer.get_vocab()

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        self.given.append(len(text))
        return list(self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    return FastTokenizer(demo_model("demo-chat") / "tokenizer.json")


@pytest.fixture(scope="module")
def vocabulary(tokenizer: FastTokenizer) -> Vocabulary:
    return Vocabulary(tokenizer, frozenset())


def forced(vocabulary: Vocabulary, text: bytes) -> int | None:
    return Guide([(Text(text),)], vocabulary).forced([0.0] * 1000)


def test_only_the_head_of_a_text_is_tokenized(tokenizer: FastTokenizer, vocabulary: Vocabulary) -> None:
    tokenizer.given.clear()
    assert forced(vocabulary, b"some words and so on, " * 5000) is not None
    assert tokenizer.given[0] < 200


@given(words=WORDS, times=st.integers(1, 200))
@example(words="你", times=100)
@example(words=" ", times=100)
@example(words="1", times=100)
def test_it_is_the_token_that_the_whole_text_begins_with(
    tokenizer: FastTokenizer, vocabulary: Vocabulary, words: str, times: int
) -> None:
    text = (words * times).encode()
    whole = tokenizer.encode(text.decode(), add_special_tokens=False)
    fits = text.startswith(vocabulary.pieces[whole[0]])
    assert forced(vocabulary, text) == (whole[0] if fits and len(whole) > 1 else None)


@given(words=WORDS)
def test_what_is_forced_fits(vocabulary: Vocabulary, words: str) -> None:
    """Also where the tokenizer would write another text, such as one character for a letter and its accent."""
    guide, rest = Guide([(Text(words.encode()),)], vocabulary), words.encode()
    while (token := guide.forced([0.0] * 1000)) is not None and token != guide.end:
        assert rest.startswith(vocabulary.pieces[token])
        assert guide.accept(token)
        rest = rest[len(vocabulary.pieces[token]) :]


def test_a_special_token_is_never_forced(tokenizer: FastTokenizer, vocabulary: Vocabulary) -> None:
    (special,) = tokenizer.encode("<|im_end|>", add_special_tokens=False)
    assert special not in vocabulary.pieces
    assert forced(vocabulary, b"<|im_end|> and more") is None
