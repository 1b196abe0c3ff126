"""What holds for every test."""

from hypothesis import HealthCheck, settings

# No test may depend on how fast the machine is just now, and by default hypothesis fails an example after 0.2 s.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
