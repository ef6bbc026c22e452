"""Runs of estimators under protocols: kept, recalled, on all cores."""
