"""Fails when a new PEFT changes what `sorakit/method/peft_type.py` and the registration rely on."""

import enum
import json
import pickle

import pytest
from peft import PeftType
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)

from sorakit.method.peft_type import sora_peft_type
from sorakit.method.tuner import SoraConfig, SoraModel, register


def test_peft_type_is_a_closed_string_enum():
    assert issubclass(PeftType, str)
    assert issubclass(PeftType, enum.Enum)
    with pytest.raises(ValueError, match=r"^'NO_SUCH_METHOD' is not a valid PeftType$"):
        PeftType("NO_SUCH_METHOD")


def test_member_is_an_instance_of_the_enum():
    assert isinstance(sora_peft_type(), PeftType)


def test_member_is_made_once():
    assert sora_peft_type() is sora_peft_type()


def test_member_is_found_by_value():
    assert PeftType("SORA") is sora_peft_type()


def test_member_is_found_by_name():
    assert PeftType["SORA"] is sora_peft_type()


def test_member_is_an_attribute():
    assert getattr(PeftType, "SORA") is sora_peft_type()  # noqa: B009  # pyright knows no such member


def test_member_is_listed_once():
    assert list(PeftType).count(sora_peft_type()) == 1


def test_member_equals_its_string():
    assert sora_peft_type() == "SORA"


def test_member_hashes_as_its_string():
    assert {"SORA": 1}[sora_peft_type()] == 1


def test_value_can_be_lowered():
    # transformers' integrations/peft.py does this when it loads an adapter
    assert sora_peft_type().value.lower() == "sora"


def test_member_pickles():
    assert pickle.loads(pickle.dumps(sora_peft_type())) is sora_peft_type()


def test_member_is_json():
    assert json.dumps({"peft_type": sora_peft_type()}) == '{"peft_type": "SORA"}'


def test_registering_twice_is_harmless():
    before = dict(PEFT_TYPE_TO_TUNER_MAPPING)
    register()
    register()
    assert before == PEFT_TYPE_TO_TUNER_MAPPING


def test_peft_maps_the_member():
    member = sora_peft_type()
    assert PEFT_TYPE_TO_CONFIG_MAPPING[member] is SoraConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[member] is SoraModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING[member] == "lora_"
