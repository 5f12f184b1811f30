"""The Python benches: one workload file per subject, one adapter per peer."""
