"""Values that are written as overrides are read back as the same values."""

from __future__ import annotations

import math
import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dropsearch.core.override_text import leaves, override

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.text(st.sampled_from("\\'\"${}[]():,= ~#\n\tü漢ab."), max_size=10),
).filter(lambda text: text != "???")
"""`???` is OmegaConf's word for a value that is missing."""
KEYS = st.text(st.sampled_from("abZ_19-./\\=: ,()[]{}$%*@?|+"), min_size=1, max_size=6).filter(
    lambda key: key == key.strip() and not key.startswith("$") and not _is_number(key)
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT)
VALUES = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(KEYS, each, max_size=3), max_leaves=6
)


def _is_number(key: str) -> bool:
    """Return whether Hydra reads a key as a number: it has no quotes for keys."""
    try:
        float(key)
    except ValueError:
        return False
    return True


def read(word: str) -> Any:
    """Return what a configuration has for an override, as Hydra applies it."""
    given: Any = OverridesParser.create().parse_override(word)
    config = OmegaConf.create({})
    OmegaConf.update(config, given.key_or_group, given.value(), merge=True, force_add=True)
    return OmegaConf.to_container(config, resolve=True)["key"]  # type: ignore[index,call-overload]


@given(value=VALUES)
@example('it\'s "mine" = 1, ${HOME}')
@example("\\")
@example("${a}\\")
@example("\\\\${a}\\'")
@example("größe")
@example("line\n")
@example("line\\\n")
@example({"a b": [1.0, "x:y"], "c=d": {}})
@example([math.inf, -math.inf, 1e22])
def test_a_value_is_read_back_equal(value: Any) -> None:
    assert repr(read(override("key", value))) == repr(value)


@given(value=TEXT)
def test_a_shell_hands_the_word_on(value: str) -> None:
    word = override("key", value)
    assert shlex.split(shlex.join(["python", word]))[1] == word


@pytest.mark.parametrize("key", ["it's", 'a"b', "größe", "a\nb", " a"])
def test_a_key_that_cannot_be_written_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="no text for the key"):
        override("key", {key: 1})


def test_leaves_have_dotted_keys() -> None:
    values = {"a": {"b": [1, {"c": 2}], "d": {}}, "e": None}
    assert dict(leaves(values)) == {"a.b": [1, {"c": 2}], "a.d": {}, "e": None}
    assert list(leaves(values["a"], "a")) == [("a.b", [1, {"c": 2}]), ("a.d", {})]
    assert list(leaves({})) == []
