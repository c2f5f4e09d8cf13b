from hypothesis import HealthCheck, settings

# A busy machine is no failure: examples are bounded by number, not by time.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
