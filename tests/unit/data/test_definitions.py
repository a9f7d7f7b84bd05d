"""A tokenizer.json that says another cut, and is again what it was."""

import json
from pathlib import Path

import pytest

from freemvmt.config import ModelConfig
from freemvmt.data.tokenizer_json import own_settings, settings_of, with_settings
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel

from resealing import resealed

FORMS = {
    "both": '{"version":"1.0","truncation":{"max_length":128},"padding":{"strategy":{"Fixed":128}},"model":{}}',
    "nothing": '{"version": "1.0", "truncation": null, "padding": null, "model": {"a": "\\u00e9}"}}',
    "not there": '{"version": "1.0", "model": {"truncation": 1, "padding": 2}}',
    "one": ' {\n  "padding" : {"a": [1, "]"]} ,\n  "model": {}\n}\n',
    "last": '{"model": {},\r\n\t"padding": null,\r\n\t"truncation": {"max_length": 3}\r\n}',
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_said_of_cutting_is_another_and_again_what_it_was(form: str) -> None:
    definition = FORMS[form]
    before = json.loads(definition)
    changed = with_settings(definition, own_settings(256))
    cut = {"direction": "Right", "max_length": 256, "strategy": "LongestFirst", "stride": 0}
    assert json.loads(changed) == before | {"truncation": cut, "padding": None}
    assert with_settings(changed, settings_of(definition)) == definition
    assert with_settings(changed, own_settings(256)) == changed


def test_what_was_replaced_must_fit(tiny_base: str, tmp_path: Path) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    model.save(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    description = json.loads(config.read_text())
    description["tokenizer"] = {"truncation": '{"max_length": '}
    config.write_text(json.dumps(description))
    resealed(tmp_path / "model")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        TwoTowersModel.load(tmp_path / "model")
