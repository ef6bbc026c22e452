"""Fingerprints and where they come from: one form for all, loaders, protocols, files of users, a simulator."""
