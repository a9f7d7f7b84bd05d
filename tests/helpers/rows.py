"""Rows in MS MARCO's schema whose queries and passages use different words for one thing.

Word k of the first list always goes with word k of the second, so an untrained average cannot tell which passage
answers, and a trained one can.
"""

import json
import random
from pathlib import Path
from typing import Any

ASKED = (
    "river mountain doctor engine kitchen planet piano winter market soldier garden camera bridge teacher island "
    "dragon candle mirror hammer pillow window carpet basket ladder anchor saddle helmet ribbon barrel shovel "
).split()
ANSWERED = (
    "finance velocity protein harvest opera circuit marble treaty glacier senate enzyme quarry ballot syntax "
    "plasma fresco turbine mammal sonnet lattice asphalt doctrine isotope vaccine canyon tariff nebula orchid ledger "
    "magnet "
).split()
FILLER = (
    "also often with many people about that which small large early later under over between through during "
    "never always several common rather quite "
).split()


def make_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """``count`` rows with one selected passage and two others each."""
    draw = random.Random(seed)

    def passage(topics: list[int]) -> str:
        words = [ANSWERED[topic] for topic in topics] + draw.choices(FILLER, k=12)
        draw.shuffle(words)
        return " ".join(words)

    rows = []
    for number in range(count):
        topics = draw.sample(range(len(ASKED)), 3)
        others = [passage(draw.sample(range(len(ASKED)), 3)) for _ in range(2)]
        texts = [passage(topics), *others]
        order = draw.sample(range(3), 3)
        rows.append(
            {
                "query": f"what {' '.join(ASKED[topic] for topic in topics)} {number}",
                "query_id": number,
                "query_type": "DESCRIPTION",
                "answers": [],
                "wellFormedAnswers": [],
                "passages": {
                    "is_selected": [int(place == 0) for place in order],
                    "passage_text": [texts[place] for place in order],
                    "url": [f"https://example.com/{number}/{place}" for place in order],
                },
            }
        )
    return rows


def write_rows(path: Path, count: int, seed: int = 0) -> Path:
    """``make_rows`` as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(count, seed)), encoding="utf-8")
    return path
