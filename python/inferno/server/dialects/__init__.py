"""One module a dialect: `parse(body) -> Request` and a renderer of what comes back. Nothing else."""
