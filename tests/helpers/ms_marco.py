"""MS MARCO as it stands on the Hub, made up: its files, and rows about towns that do not exist."""

import io
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[Mapping[str, Any]]

_STRINGS, _INTEGERS = pa.list_(pa.string()), pa.list_(pa.int32())
_PASSAGES = pa.struct([("is_selected", _INTEGERS), ("passage_text", _STRINGS), ("url", _STRINGS)])
_SCHEMA = pa.schema(
    [
        ("answers", _STRINGS),
        ("passages", _PASSAGES),
        ("query", pa.string()),
        ("query_id", pa.int32()),
        ("query_type", pa.string()),
        ("wellFormedAnswers", _STRINGS),
    ]
)

_FEATURES = """\
  features:
  - name: answers
    sequence: string
  - name: passages
    sequence:
    - name: is_selected
      dtype: int32
    - name: passage_text
      dtype: string
    - name: url
      dtype: string
  - name: query
    dtype: string
  - name: query_id
    dtype: int32
  - name: query_type
    dtype: string
  - name: wellFormedAnswers
    sequence: string
  splits:
"""


def ms_marco_files(configs: Mapping[str, Mapping[str, Rows]], shards: int = 1) -> dict[str, bytes]:
    """The files of ``microsoft/ms_marco``: Parquet, and a README whose front matter says what is where."""
    files: dict[str, bytes] = {}
    information, places = "dataset_info:\n", "configs:\n"
    for config, splits in configs.items():
        information += f"- config_name: {config}\n" + _FEATURES
        places += f"- config_name: {config}\n  data_files:\n"
        for split, rows in splits.items():
            size = 0
            for shard in range(shards):
                name = f"{config}/{split}-{shard:05}-of-{shards:05}.parquet"
                files[name] = parquet(rows[shard * len(rows) // shards : (shard + 1) * len(rows) // shards])
                size += len(files[name])
            information += f"  - name: {split}\n    num_bytes: {size}\n    num_examples: {len(rows)}\n"
            places += f"  - split: {split}\n    path: {config}/{split}-*\n"
    files["README.md"] = f"---\nlanguage:\n- en\npretty_name: MS MARCO\n{information}{places}---\n".encode()
    return files


def parquet(rows: Rows) -> bytes:
    """Rows of MS MARCO as a Parquet file of its schema."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=_SCHEMA), sink)
    return sink.getvalue()


_ASPECTS = (
    ("where is {}", "LOCATION", "{} lies in the {} part of the country, {} miles from the coast, near {}."),
    ("how old is {}", "NUMERIC", "{}, the {} one, was founded {} years ago and is older than {}."),
    ("population of {}", "NUMERIC", "The population of {}, mostly {}, is {} thousand; that of {} is larger."),
    ("what is {} famous for", "DESCRIPTION", "{} is famous for a {} bridge, {} feet long, which leads to {}."),
    ("who built the cathedral of {}", "PERSON", "The cathedral of {}, {}, took {} years and a master from {}."),
    ("weather in {} in june", "DESCRIPTION", "In June the weather in {} is {}, with {} mm of rain, less than in {}."),
    ("what do people eat in {}", "ENTITY", "People in {} eat {} cheese that ripens {} weeks, as they do in {}."),
    ("how far is the airport from {}", "NUMERIC", "From {} a {} road of {} miles leads to the airport by way of {}."),
)
_WORDS = ("northern", "southern", "gothic", "coastal", "quiet", "mild", "ancient", "narrow")


def ms_marco_rows(n: int, seed: int) -> list[dict[str, Any]]:
    """``n`` rows of MS MARCO about towns that do not exist; different seeds have different queries.

    A query and its selected passage share words, so a model can learn something. Ten passages stand in a row, most of
    them the answers to other queries of the same rows; one row in eight has no selected passage and no answer.
    """
    chance = random.Random(seed)
    towns = ["".join(chance.choice("bdfklmnprstv") + chance.choice("aeiou") for _ in range(3)) for _ in range(n)]
    towns = [f"{town}{chance.choice(('ton', 'burg', 'mouth', ' falls'))}" for town in towns]
    texts, queries = [], []
    for number, town in enumerate(towns):
        query, kind, form = chance.choice(_ASPECTS)
        neighbour = towns[number - 1].title()
        texts.append(form.format(town.title(), chance.choice(_WORDS), chance.randrange(3, 900), neighbour))
        queries.append((query.format(town), kind))
    rows = []
    for number, (query, kind) in enumerate(queries):
        answered = number % 8 != 7
        others = chance.sample(range(n), min(n, 10))
        shown = [other for other in others if other != number][: 9 if answered else 10]
        if answered:
            shown.insert(chance.randrange(len(shown) + 1), number)
        passages = {
            "is_selected": [int(other == number) for other in shown],
            "passage_text": [texts[other] for other in shown],
            "url": [f"http://towns.example/{towns[other].replace(' ', '-')}" for other in shown],
        }
        rows.append(
            {
                "answers": [texts[number]] if answered else ["No Answer Present."],
                "passages": passages,
                "query": query,
                "query_id": seed * 1_000_000 + number,
                "query_type": kind,
                "wellFormedAnswers": [],
            }
        )
    return rows
