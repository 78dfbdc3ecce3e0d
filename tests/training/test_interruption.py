"""Signals that ask a run to stop: echoes of the first are collected, the same one later ends the process."""

import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from upchirp.training.folders import interruption
from upchirp.training.folders.interruption import Interrupted, at_once, collected_signals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_echo_is_no_second_signal(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with collected_signals() as received:
        signal.raise_signal(signum)
        signal.raise_signal(signum)
    assert received == [signum, signum]
    assert signal.getsignal(signum) is before


def test_the_same_signal_later_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 100.6])
    monkeypatch.setattr(interruption, "time", type("Clock", (), {"monotonic": lambda: next(clock)}))
    with pytest.raises(KeyboardInterrupt), collected_signals() as received:
        signal.raise_signal(signal.SIGTERM)
        # Another kind: a scheduler that ends what a person has interrupted.
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGTERM, signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)


def test_a_patient_process_collects_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0])
    monkeypatch.setattr(interruption, "time", type("Clock", (), {"monotonic": lambda: next(clock)}))
    with collected_signals(patient=True) as received:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert len(received) == 2


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with collected_signals() as received:
            signal.raise_signal(signal.SIGHUP)
        assert not received
    finally:
        signal.signal(signal.SIGHUP, before)


def test_between_trainings_an_echo_does_not_cut_the_end_short() -> None:
    cleaned_up = False
    with pytest.raises(Interrupted, match="go on by"), at_once(Path("runs"), "go on by --resume auto"):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned_up = True
    assert cleaned_up


def test_between_trainings_the_same_signal_later_ends_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.6])
    monkeypatch.setattr(interruption, "time", type("Clock", (), {"monotonic": lambda: next(clock)}))
    with pytest.raises(KeyboardInterrupt), at_once(Path("runs"), "go on by --resume auto"):
        with suppress(interruption._Signalled):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)
