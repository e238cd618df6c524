"""Events told to receivers elsewhere: signatures, the retry schedule and the one way out over HTTP."""
