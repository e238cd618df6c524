"""HTTP: routes, bodies, streams, errors. Knows who may do what; leaves the doing to the rooms below."""
