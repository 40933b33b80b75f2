from __future__ import annotations

import threading

from dropsearch.core.repetition import repeating


def test_an_action_is_repeated_until_the_context_ends() -> None:
    calls, thrice = [], threading.Event()

    def act() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            thrice.set()

    with repeating(act, 0.001, "acting"):
        assert thrice.wait(30)
    assert {*calls} == {"dropsearch-acting"}
    assert "dropsearch-acting" not in {thread.name for thread in threading.enumerate()}


def test_the_end_need_not_wait_for_a_call() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        may_end.wait(30)

    with repeating(hang, 0.001, "hanging", waits=False):
        assert begun.wait(30)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "dropsearch-hanging")
    may_end.set()
    thread.join(30)
    assert not thread.is_alive()
