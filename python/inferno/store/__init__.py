"""The database: what outlives the process. SQLite in the data directory, or PostgreSQL by its URL."""
