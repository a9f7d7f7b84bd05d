import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from freemvmt.cli import main
from freemvmt.config import MiningConfig, TrainConfig
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.bm25 import BM25
from freemvmt.trainer import mining
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.mining import mine
from freemvmt.trainer.teacher import TeacherVectors
from freemvmt.training import train


@pytest.fixture(scope="module")
def model(tiny_config: TrainConfig) -> TwoTowersModel:
    return TwoTowersModel(tiny_config.model_config())


def by_a_loop(model: TwoTowersModel, data: TrainingData, config: MiningConfig) -> list[list[int]]:
    """The definition, query by query."""
    queries = model.encode_query_tokens(data.queries).numpy()
    passages = model.encode_document_tokens(data.passages).numpy()
    words = BM25(data.examples.passages).rank(data.examples.queries, config.last_rank).documents
    found = []
    for number in range(len(queries)):
        cosines = passages @ queries[number]
        near = np.argsort(-cosines, kind="stable")[config.first_rank - 1 : config.last_rank].tolist()
        lexical = words[number, config.first_rank - 1 :].tolist()
        turns = [passage for pair in zip(near, lexical, strict=True) for passage in pair]
        ranked = {"model": near, "bm25": lexical, "both": list(dict.fromkeys(turns))}[config.by]
        answers = data.examples.positives[number].tolist()
        bound = (1 - config.margin) * min(cosines[answer] for answer in answers)
        found.append([one for one in ranked if one >= 0 and one not in answers and cosines[one] < bound])
    return [one[: config.count] for one in found]


@pytest.mark.parametrize("by", ["model", "bm25", "both"])
def test_mined_is_what_the_definition_finds(
    by: str, model: TwoTowersModel, tiny_data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mining, "_BLOCK", 37)
    for config in (
        MiningConfig(by=by, first_rank=3, last_rank=40, count=4),
        MiningConfig(by=by, first_rank=1, last_rank=25, count=100, margin=0.3),
    ):
        mined = mine(model, tiny_data, config)
        assert [one.tolist() for one in mined.negatives] == by_a_loop(model, tiny_data, config)
        assert mined.candidates >= len(mined.negatives.ids) + mined.known
    if by != "bm25":  # queries and their passages share no word
        assert mined.known > 0
        assert mined.near > 0


def test_a_teacher_has_a_word_too(model: TwoTowersModel, tiny_data: TrainingData) -> None:
    plain = MiningConfig(by="model", first_rank=1, last_rank=30, count=30, margin=0.0)
    judge = torch.nn.functional.normalize(torch.randn(len(tiny_data.queries) + len(tiny_data.passages), 12)).half()
    taught = TeacherVectors(judge[: len(tiny_data.queries)].numpy(), judge[len(tiny_data.queries) :].numpy())
    data = dataclasses.replace(tiny_data, teacher_vectors=taught)
    free, judged = (
        mine(model, data, config).negatives for config in (plain, dataclasses.replace(plain, teacher="whoever"))
    )
    for number in range(len(free)):
        asked = taught.queries[number].astype(np.float32)
        seen = taught.passages.astype(np.float32) @ asked
        least = min(seen[answer] for answer in tiny_data.examples.positives[number])
        assert judged[number].tolist() == [one for one in free[number].tolist() if seen[one] < least]
    assert 0 < len(judged.ids) < len(free.ids)


def test_a_training_mines_for_itself(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    config = dataclasses.replace(tiny_config, negatives="given", loss="infonce", learning_rate=3e-5)
    plain = train(config, tiny_data)
    mined = train(dataclasses.replace(config, self_mine_every=2), tiny_data)
    assert mined.history[:2] == plain.history[:2]  # nothing is mined before there is something to mine with
    assert mined.history[2]["avg_train_loss"] != plain.history[2]["avg_train_loss"]
    with pytest.raises(UserError, match="add --negatives given"):
        TrainConfig(self_mine_every=1)


def test_ranks_beyond_the_corpus_and_a_positive_that_is_far_give_nothing(
    model: TwoTowersModel, tiny_data: TrainingData
) -> None:
    beyond = mine(model, tiny_data, MiningConfig(by="both", first_rank=10**6, last_rank=10**6))
    assert len(beyond.negatives) == len(tiny_data.queries)
    assert beyond.negatives.ids.tolist() == []
    with pytest.raises(UserError, match="--first-rank is 9, beyond --last-rank 3"):
        MiningConfig(first_rank=9, last_rank=3)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_command_writes_rows_that_train(
    suffix: str, tiny_base: str, rows_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TwoTowersModel(TrainConfig(base=tiny_base).model_config()).save(tmp_path / "model")
    output = tmp_path / f"mined.{suffix}"
    flags = ["--by", "both", "--first-rank", "2", "--teacher", str(tmp_path / "model"), "--margin", "0.1"]
    assert main(["mine", str(tmp_path / "model"), rows_file, "--output", str(output), *flags]) == 0
    said = capsys.readouterr().out
    assert "negatives of" in said
    assert f"--dataset {output} --negatives given" in said
    before = prepare(TrainConfig(base=tiny_base, dataset=(rows_file,))).examples
    after = prepare(TrainConfig(base=tiny_base, dataset=(str(output),), validation_queries=1)).examples
    answers = {
        query: {before.passages[number] for number in before.positives[place]}
        for place, query in enumerate(before.queries)
    }
    kept = [place for place, query in enumerate(after.queries) if query in answers]
    assert len(kept) > 400
    for place in kept:
        assert {after.passages[number] for number in after.positives[place]} == answers[after.queries[place]]
        assert not {after.passages[number] for number in after.negatives[place]} & answers[after.queries[place]]
    assert 0 < max(after.negatives.lengths) <= 5
    assert main(["mine", str(tmp_path / "model"), rows_file, "--output", str(tmp_path / "mined.csv")]) == 2
    assert "neither .parquet nor .jsonl" in capsys.readouterr().err


def test_given_negatives_that_no_row_has_are_a_warning(
    tiny_base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"query": f"query {number}", "passage": f"passage {number}"} for number in range(20)]
    path = tmp_path / "pairs.jsonl"
    warned = {}
    for field in ("negative", "negatives"):
        path.write_text("\n".join(json.dumps({**row, field: ["another"]}) for row in rows))
        caplog.clear()
        prepare(TrainConfig(base=tiny_base, dataset=(str(path),), negatives="given", wandb=False))
        warned[field] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned["negative"] == []
    assert warned["negatives"] == [f'no row of {path} has a "negative" for --negatives given; those of the batch serve']
