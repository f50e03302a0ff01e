"""Hypothesis profiles: FOLDPOINT_HYPOTHESIS_PROFILE=torture looks at many more examples."""

from __future__ import annotations

import os

import aerospike_server
import pytest
from hypothesis import HealthCheck, Phase, settings

_ALLOWED = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)

# Shrinking a long history takes minutes: the torture profile does it, the normal one prints how to repeat the failure.
_QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
settings.register_profile("normal", phases=_QUICK, deadline=None, max_examples=100, suppress_health_check=_ALLOWED)
settings.register_profile("torture", deadline=None, max_examples=5000, suppress_health_check=_ALLOWED)
settings.load_profile(os.environ.get("FOLDPOINT_HYPOTHESIS_PROFILE", "normal"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    aerospike_server.say_if_skipped(terminalreporter)
