"""Classes that are built for each trial get what Hydra would give them, most of them without Hydra."""

from __future__ import annotations

from typing import Any

import pytest

from dropsearch.core.errors import InputError
from dropsearch.experiment import targets
from dropsearch.experiment.class_maker import ClassMaker, is_taken_plainly
from dropsearch.experiment.targets import instantiated

LINEAR = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}
ARGUMENTS: list[tuple[dict[str, Any], bool]] = [
    ({"lr": 0.1, "name": "${a}", "layers": 2, "bias": True, "norm": None}, True),
    ({"_convert_": "all", "hidden": [1, (2, 3)], "optimizer": {"lr": 0.1, "betas": [0.9]}}, True),
    ({"_convert_": "partial", "hidden": {"sizes": [1]}}, True),
    ({"hidden": [1, 2]}, False),
    ({"_convert_": "none", "optimizer": {"lr": 0.1}}, False),
    ({"_convert_": "all", "layer": LINEAR}, False),
    ({"_convert_": "all", "layers": [{"inner": LINEAR}]}, False),
    ({"_convert_": "all", "_recursive_": False, "layer": {"lr": 0.1}}, False),
    ({"_convert_": "all", "names": {1: "one"}}, False),
]


def taken(**given: Any) -> dict[str, Any]:
    if given.get("lr") == 7:
        raise ValueError("lr must not be 7")
    return given


def kinds(value: Any) -> Any:
    """Return the types in a value, with the values of what holds none."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return type(value), {name: kinds(each) for name, each in value.items()}
    if isinstance(value, list | tuple) or type(value).__name__ == "ListConfig":
        return type(value), [kinds(each) for each in value]
    return (type(value), repr(value))


@pytest.mark.parametrize(("given", "plainly"), ARGUMENTS)
def test_later_modules_get_what_hydra_gives(given: dict[str, Any], plainly: bool, monkeypatch: pytest.MonkeyPatch):
    target, calls, hydras = f"{__name__}.taken", [], targets.instantiate
    monkeypatch.setattr(targets, "instantiate", lambda config: calls.append(config) or hydras(config))
    build = ClassMaker(target, "model", taken)
    first, later = build(given, {"rates": (1, 2)}), build(given, {"rates": (1, 2)})
    assert len(calls) == (1 if plainly else 2)
    assert is_taken_plainly(given) == plainly
    assert kinds(first) == kinds(later) == kinds(instantiated(target, given, "model", {"rates": (1, 2)}))


def test_later_modules_share_no_list():
    given = {"_convert_": "all", "hidden": [1, 2]}
    build = ClassMaker(f"{__name__}.taken", "model", taken)
    build(given, {})
    build(given, {})["hidden"].append(3)
    assert build(given, {})["hidden"] == [1, 2]


def test_failure_of_a_later_module_is_named_as_hydras():
    build = ClassMaker(f"{__name__}.taken", "model", taken)
    with pytest.raises(InputError) as hydras:
        build({"lr": 7}, {})
    build({"lr": 1}, {})
    with pytest.raises(InputError) as later:
        build({"lr": 7}, {})
    assert str(later.value) == str(hydras.value)
