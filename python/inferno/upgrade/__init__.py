"""Newer versions: looking for them, and installing them when a person says so."""
