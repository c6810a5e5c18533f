"""Where a text is cut before it is spoken."""

import pytest

from workers.engines.voices.sentences import split


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Mr. Smith paid 3.14 dollars. He left.", ["Mr. Smith paid 3.14 dollars.", "He left."]),
        ("J. R. Tolkien wrote e.g. The Hobbit.", ["J. R. Tolkien wrote e.g. The Hobbit."]),
        ("Apples, pears etc. are fruit. Yes.", ["Apples, pears etc. are fruit.", "Yes."]),
        ("He came at 5 p.m. Then he slept.", ["He came at 5 p.m.", "Then he slept."]),
        ("It was I. Then they knew.", ["It was I.", "Then they knew."]),
        ("No. 5 is alive. No. It is not.", ["No. 5 is alive.", "No.", "It is not."]),
        ("Wait... what? Well… Good.", ["Wait... what?", "Well…", "Good."]),
        ('"Why?" she asked. "No!" He went.', ['"Why?" she asked.', '"No!"', "He went."]),
        ("See www.example.com or v1.2.3 now.", ["See www.example.com or v1.2.3 now."]),
        ("1. First item. 2. Second item.", ["1. First item.", "2. Second item."]),
        ("你好。今天天气很好！我们去吗？好", ["你好。", "今天天气很好！", "我们去吗？", "好"]),
        ("他说：“走吧。”然后走了。", ["他说：“走吧。”", "然后走了。"]),
        ("I said 你好。 Then I left.", ["I said 你好。", "Then I left."]),
        ("A title\n\nA text that\ngoes on.", ["A title", "A text that goes on."]),
        ("... !!! hello", ["... !!! hello"]),
        ("?!", ["?!"]),
        ("  \n\n ", []),
    ],
)
def test_sentences(text: str, pieces: list[str]) -> None:
    assert split(text) == pieces


def test_a_long_sentence_is_cut_at_its_clauses() -> None:
    clause = "a clause of words, "
    pieces = split(clause * 40, 100)
    assert all(len(piece) <= 100 and piece.endswith(",") for piece in pieces)
    assert " ".join(pieces) == (clause * 40).strip()


@pytest.mark.parametrize("text", ["word " * 200, "字" * 1000, "很长的句子，" * 100, "x" * 5000, "a.b" * 1000])
def test_pieces_are_short_and_nothing_is_lost(text: str) -> None:
    pieces = split(text, 120)
    assert all(0 < len(piece) <= 120 for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@pytest.mark.parametrize(
    "text", ["e.g. " * 20_000, "." * 100_000, "\n" * 100_000, ". " * 50_000, "a" * 100_000]
)
@pytest.mark.timeout(5)
def test_hostile_texts_take_no_time(text: str) -> None:
    split(text)
