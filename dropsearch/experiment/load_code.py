"""The line of Python that loads the model of a checkpoint, with its rates set."""

from __future__ import annotations

import inspect
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException

from dropsearch._compat.lightning import quiet_loggers
from dropsearch.config.schema import Config, arguments, takes_optimizer
from dropsearch.core.global_state import process_state_kept
from dropsearch.core.printable import masked_values
from dropsearch.core.records import ARMS
from dropsearch.core.user_errors import LINE, USER_ERRORS, described
from dropsearch.experiment.insertion import where_of
from dropsearch.experiment.secret_values import secret_variable, without_secrets
from dropsearch.experiment.targets import HYDRAS, as_text, imported, is_nested, takes_rates


def load_code(
    config: Config | None,
    arm: str,
    checkpoint: str,
    carried: Mapping[str, Any],
    rates: Mapping[str, float],
    kept: Path | None = None,
) -> tuple[str, str]:
    """Return one line of Python that loads a checkpoint and prints its network, and what user code raises in it.

    One of the two is empty; both are where no line can say how the network is made.

    With `kept` the line has been executed: layers that `setup` builds need another line than those of a constructor,
    and no line gives what `setup` asks of data.

    Args:
        config: The configuration of its training; None for a built-in model.
        arm: The arm of its training.
        checkpoint: Path of the checkpoint.
        carried: Arguments of the user's class for its trial in addition to the configuration.
        rates: Rates of its training by site, which a user's class does not store.
        kept: An existing file with the same content.
    """
    if config is None or takes_optimizer(config):  # its checkpoint holds all that it was built with
        load = f"Classifier.load_from_checkpoint({_quoted(checkpoint)})"
        return f"{_imported('dropsearch.Classifier')}; print({load})", ""
    # A function that makes modules has no name to import, and a class builds the BatchNorm that was taken away.
    if config.model.made_by is not None or (config.batchnorm.replace and not ARMS[arm].batchnorm):
        return "", ""
    # What has no text, such as a tensor that the data module has, is in the checkpoint or nowhere.
    given = {name: value for name, value in {**arguments(config.model), **carried}.items() if _has_text(value)}
    rest = "; ".join([*_inserted(config), *_set(rates), "print(net)"])
    raised: list[str] = []
    for load in _ways(config.model._target_, given):
        failure = "" if kept is None else _failure(f"{load(str(kept))}; {rest}")
        if not failure:
            return f"{load(checkpoint)}; {rest}", ""
        raised.append(failure)
    return "", next((failure for failure in raised if _IN_USER_CODE.search(failure)), raised[0])


def _ways(target: str, given: Mapping[str, Any]) -> Iterator[Callable[[str], str]]:
    """Yield what builds a network and loads its weights from a file, the shortest code first."""
    made = imported(target, "model._target_")
    nested = _nested(given, takes_rates(made))
    flat = {key: value for key, value in given.items() if key not in nested and not key.startswith("_")}
    start = "import os; " if any(masked_values(value, key) != value for key, value in flat.items()) else ""
    words = [f"{key}={_argument(key, value)}" for key, value in flat.items()]
    if inspect.isclass(made) and "_args_" not in nested:
        if nested:
            loads = f"{_INSTANTIATE}; net = {_made(f'{target}.load_from_checkpoint', nested)}"
        else:
            loads = f"{_imported(target)}; net = {target.rpartition('.')[2]}.load_from_checkpoint"
        yield lambda path: f"{start}{loads}({', '.join([_quoted(path), *words])})"
    builds = f"{start}import torch; {_INSTANTIATE}; net = {_made(target, nested)}({', '.join(words)})"
    for hooks in ("", '; net.setup("fit")', "; net.configure_model()", '; net.setup("fit"); net.configure_model()'):
        yield partial(_with_weights, f"{builds}{hooks}")


def _with_weights(builds: str, path: str) -> str:
    return f'{builds}; net.load_state_dict(torch.load({_quoted(path)}, "cpu", weights_only=True)["state_dict"])'


_INSTANTIATE = "from hydra.utils import instantiate"


def _nested(given: Mapping[str, Any], rates: str) -> dict[str, Any]:
    """Return the arguments that Hydra makes, with what the configuration says of how; empty where it makes none."""
    how = ("_args_", *HYDRAS)
    nested = {key: value for key, value in given.items() if key != rates and (key in how or is_nested(value))}
    return nested if set(nested) - {*HYDRAS} else {}


def _has_text(value: Any) -> bool:
    """Return whether Python code can write a value."""
    if type(value) in (list, tuple):
        return all(map(_has_text, value))
    if type(value) is dict:
        return all(map(_has_text, value.values()))
    return value is None or type(value) in (bool, int, float, str)


def _made(target: str, nested: Mapping[str, Any]) -> str:
    """Return the expression of what builds a class, given the arguments that Hydra makes as in a trial."""
    given = as_text({"_target_": target, "_partial_": True, **nested})
    return f"instantiate({without_secrets(given, 'model')!r})"


def _failure(line: str) -> str:
    """Return what the execution of a line raises; a line that needs a secret of the environment is not tried."""
    if "os.environ[" in line or "${oc.env:" in line:
        return ""
    with ExitStack() as kept:
        for each in (process_state_kept(), quiet_loggers(logging.CRITICAL), warnings.catch_warnings()):
            kept.enter_context(each)
        kept.enter_context(redirect_stdout(io.StringIO()))
        warnings.simplefilter("ignore")
        try:
            exec(compile(line, LINE, "exec"), {"__name__": "__main__"})
        except InstantiationException as error:
            return described(error.__cause__ or error)
        except USER_ERRORS as error:  # user code
            return described(error)
    return ""


_IN_USER_CODE = re.compile(r" \(\S+:\d+ in \w+\)")


def _argument(key: str, value: Any) -> str:
    """Return an argument of the user's class as Python code; one with a password or token is read from a variable."""
    if masked_values(value, key) != value:
        found = f'os.environ["{secret_variable(f"model.{key}")}"]'
        return f"int({found})" if isinstance(value, int) else found
    return repr(value)


def _quoted(text: str) -> str:
    # In double quotes where it can be, for the shell wants the single ones.
    return json.dumps(text, ensure_ascii=False)


def _imported(target: str) -> str:
    module, _, name = target.rpartition(".")
    return f"from {module} import {name}"


def _inserted(config: Config) -> list[str]:
    """Return the code that puts dropout where `sites.insert` says."""
    where = where_of(config.sites)
    if where is None:
        return []
    if isinstance(where, str):
        return [_imported("dropsearch.insert_dropout"), f"insert_dropout(net, {json.dumps(where)})"]
    parts = [where] if isinstance(where, type) else list(where)
    types = [each for each in parts if isinstance(each, type)]
    listed = ", ".join(
        f"{each.__module__}.{each.__qualname__}" if isinstance(each, type) else json.dumps(each) for each in parts
    )
    imports = dict.fromkeys(f"import {each.__module__}" for each in types)
    return [_imported("dropsearch.insert_dropout"), *imports, f"insert_dropout(net, [{listed}])"]


def _set(rates: Mapping[str, float]) -> list[str]:
    """Return the code that sets rates on a network."""
    listed = ", ".join(f"{json.dumps(site)}: {rate:.6g}" for site, rate in rates.items())
    return [_imported("dropsearch.set_rates"), f"set_rates(net, {{{listed}}})"] if rates else []
