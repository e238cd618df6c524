"""Batches: many prompts handed in at once, kept in the database, worked off when there is room."""
