"""How compute threads wait for one another (libgomp), for processes that are Inferno's own."""

#: Rounds that a thread spins before it sleeps. Much more, as libgomp has it by itself, is no faster on an idle machine and
#: far slower beside anything else that computes: threads then wait for one another's time slices (docs/performance.md).
ENVIRONMENT = {"GOMP_SPINCOUNT": "1000"}
