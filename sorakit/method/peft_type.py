"""The one place that reaches into PEFT's internals: a member `SORA` for its closed enum of methods.

`peft.utils.register_peft_method` needs an enum entry and offers no way to make one (PEFT issues
#1562 and #2273, closed). `tests/unit/test_peft_type.py` fails when a new PEFT changes what is used
here.
"""

from peft import PeftType

NAME = "SORA"


def sora_peft_type() -> PeftType:
    """Return `PeftType.SORA`, which is made on the first call."""
    if NAME not in PeftType.__members__:
        member = str.__new__(PeftType, NAME)
        member._name_ = NAME
        member._value_ = NAME
        setattr(member, "_sort_order_", len(PeftType._member_names_))  # noqa: B010  # untyped in Enum
        PeftType._member_names_.append(NAME)
        PeftType._member_map_[NAME] = member
        PeftType._value2member_map_[NAME] = member
        type.__setattr__(PeftType, NAME, member)
    return PeftType[NAME]
