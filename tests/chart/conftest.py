"""Every preset, and two sets of values with what no preset has; rendered once."""

from __future__ import annotations

import pytest

from tests.support import chart


@pytest.fixture(params=sorted(chart.SAMPLES))
def manifests(request):
    values, preset = chart.SAMPLES[request.param]
    return chart.render(values, preset)
