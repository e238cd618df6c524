"""What each route does, one module a noun. A handler reads, asks the rooms below, and answers."""
