"""The form in which texts compare, for words and for filters."""

import re
import unicodedata

# Characters that Unicode asks to ignore (Default_Ignorable_Code_Point), but for U+200B, which stands between words.
IGNORED = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IGNORED = re.compile(f"[{IGNORED}]+")
_SURROGATES = re.compile("[\ud800-\udfff]")


def normalized(text: str) -> str:
    """``text`` in the form in which texts compare: NFKC, case folded, without characters made to be ignored.

    Half of a surrogate pair counts as U+FFFD.
    """
    if text.isascii():
        return text.lower()
    if _SURROGATES.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    folded = _IGNORED.sub("", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFKC", folded)
