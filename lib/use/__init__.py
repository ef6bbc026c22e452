"""A localizer for places of your own: calibrated, saved, exported."""
