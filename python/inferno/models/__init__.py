"""Model files and the models in memory."""
