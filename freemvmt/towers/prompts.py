"""A prompt: text that stands before every text of a side, such as "query: ", inside a transformer tower alone.

A tower is given the tokens of a text. Where the tokens of prompt and text together are those of the prompt and those
of the text, the prompt's are put before them. Else, as in byte-level BPE, where a word after a space has other tokens
than a word at the beginning, the text is read from its tokens and tokenised with its prompt.
"""

import numpy as np

from freemvmt.config import MAX_INTEGER
from freemvmt.data.ragged import TokenArray, offsets_of
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError

# Beginnings of texts: words in both cases, numbers, signs, accents, scripts without spaces.
_PROBE = (
    "a", "what is a tower", "The 2nd", "1900", "(x) y", "-1", "'s", "_z", "Élan", "naïve", "東京都", "👋 hi",
)  # fmt: skip


class Prompt:
    """The prompt ``text`` for tokens of the tokenizer ``definition``."""

    def __init__(self, text: str, definition: str) -> None:
        self._text, self._tokenizer = text, Tokenizer(definition, MAX_INTEGER)
        alone, together = self._tokenizer.encode(_PROBE), self._tokenizer.encode([text + word for word in _PROBE])
        self.ids = together[0][: max(0, len(together[0]) - len(alone[0]))]
        self.tokens = int((together.lengths - alone.lengths).max())  # the most that a text has more with the prompt
        self._is_prefix = _equal(_after(self.ids, alone), together)
        if not self._is_prefix and not _equal(self._tokenizer.encode(self._tokenizer.decode(alone)), alone):
            raise UserError(
                f"the prompt {text[:100]!r} changes the tokens of the text after it, and this tokenizer does not keep "
                "every character; give another model"
            )

    def before(self, tokens: TokenArray, room: int) -> TokenArray:
        """``tokens`` with the prompt before each text that has any; both together are cut to ``room`` tokens."""
        has_tokens = np.flatnonzero(tokens.lengths)
        if not self._is_prefix:
            texts = self._tokenizer.decode(tokens.take(has_tokens))
            with_prompt = self._tokenizer.encode([self._text + text for text in texts])
        else:
            with_prompt = _after(self.ids, tokens.take(has_tokens))
        lengths = np.zeros(len(tokens), np.int64)
        lengths[has_tokens] = with_prompt.lengths
        return TokenArray(with_prompt.ids, offsets_of(lengths)).cut(room)


def _after(prefix: np.ndarray, tokens: TokenArray) -> TokenArray:
    """Each of ``tokens`` with ``prefix`` before it."""
    offsets = offsets_of(tokens.lengths + len(prefix))
    ids = np.empty(offsets[-1], np.int32)
    places = np.arange(len(tokens.ids)) + np.repeat((np.arange(len(tokens)) + 1) * len(prefix), tokens.lengths)
    ids[places] = tokens.ids
    ids[(offsets[:-1, None] + np.arange(len(prefix))).ravel()] = np.tile(prefix, len(tokens))
    return TokenArray(ids, offsets)


def _equal(one: TokenArray, other: TokenArray) -> bool:
    return np.array_equal(one.offsets, other.offsets) and np.array_equal(one.ids, other.ids)
