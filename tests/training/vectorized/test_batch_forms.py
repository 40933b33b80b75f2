"""Batches of any form train vectorized as they train alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dropsearch.core.batches import examples_of, form_of, leaves
from dropsearch.core.errors import UnsupportedError
from tests.training.vectorized.laws import Case, assert_law_2
from tests.user_modules.batches import FORMS, Formed, Reading, ReadingNames, parts


@pytest.mark.parametrize("form", FORMS)
def test_law_2_holds_for_batches_of_any_form(form: str, tmp_path: Path) -> None:
    assert_law_2(Case(Reading, Formed(form)), tmp_path)


def test_text_that_a_step_uses_is_named() -> None:
    reason = Case(ReadingNames, Formed("dict with names")).reason()
    assert reason.startswith(
        "a step uses a str of its batch, which differs between batches and is not a tensor (batches.py:"
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_form_builds_the_batches_that_it_was_made_of(form: str) -> None:
    made = [FORMS[form](torch.full((2, 64), float(n)), torch.full((2,), n)) for n in (1, 2)]
    built = form_of(made).build(examples_of(made[1]))
    assert type(built) is type(made[1])
    assert all(torch.equal(a, b) for a, b in zip(parts(built), parts(made[1]), strict=True))
    assert len(list(leaves(built))) == len(list(leaves(made[1])))


def test_batches_of_different_parts_have_no_form() -> None:
    with pytest.raises(UnsupportedError, match="different numbers of parts"):
        form_of([{"x": [torch.ones(2)]}, {"x": [torch.ones(2), torch.ones(2)]}])
    with pytest.raises(UnsupportedError, match="without dimensions that differs"):
        form_of([(torch.ones(2), torch.tensor(1)), (torch.ones(2), torch.tensor(2))])


@pytest.mark.parametrize("use", [len, bool, list, int, str, lambda x: x + 1, lambda x: x.upper(), lambda x: x == "a"])
def test_every_use_of_what_differs_is_refused(use: Callable[[Any], Any]) -> None:
    batch = form_of([(torch.ones(2), "a"), (torch.ones(2), "b")]).build([torch.ones(2)])
    with pytest.raises(UnsupportedError, match="uses a str of its batch"):
        use(batch[1])
