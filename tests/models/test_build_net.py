"""Networks by name, from configurations and from the files of `conf`."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

from dropsearch.core.errors import InputError
from dropsearch.models.classifier import NETS, build_net

CONF = Path(__file__).parents[2] / "conf"
GIVEN = {"input_shape", "classes", "dropout", "layout"}
SHAPE = {"input_shape": [1, 8, 8], "classes": 3}


@pytest.mark.parametrize("name", NETS)
def test_config_file_has_all_defaults(name):
    written = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())["model"]
    parameters = inspect.signature(NETS[name]).parameters
    defaults = {key: p.default for key, p in parameters.items() if key not in GIVEN}
    as_data = {key: list(v) if isinstance(v, tuple) else v for key, v in defaults.items()}

    assert written.pop("_target_") == f"dropsearch.models.{name}_classifier"
    assert written.pop("_convert_") == "all"
    assert written.pop("optimizer") == "${optimizer}"
    assert written == {"name": name, **as_data}
    assert isinstance(build_net({**written, **SHAPE}), NETS[name])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "mpl", **SHAPE}, r"model.name must be one of mlp, cnn, .*'mpl' \(did you mean \"mlp\"\?\)"),
        (SHAPE, "model.name must be one of mlp, cnn, rnn, transformer, got None"),
        (
            {"name": "mlp", "hiden": [3], **SHAPE},
            r"model.hiden is not an option of mlp \(did you mean \"hidden\"\?\)",
        ),
        ({"name": "mlp", "classes": 3}, "model mlp needs input_shape"),
        ({"name": "mlp", "activation": "rele", **SHAPE}, "model mlp: activation must be one of relu"),
        (
            {"name": "rnn", "dropout": {"hidden1.dropout": 0.5}, **SHAPE},
            "its sites are input.dropout, output.dropout",
        ),
    ],
)
def test_invalid_configuration_raises_input_error(config, message):
    with pytest.raises(InputError, match=message) as raised:
        build_net(config)

    assert "\n" not in str(raised.value)


def test_configuration_is_not_modified():
    config = {"name": "mlp", **SHAPE}
    build_net(config)

    assert config == {"name": "mlp", **SHAPE}
