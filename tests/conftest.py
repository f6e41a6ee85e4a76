"""What all tests share: examples of hypothesis that do not depend on the machine, its speed, or the day."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "plaudit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("plaudit")
