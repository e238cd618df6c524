"""The `inferno` command: thin verbs over the rooms below."""
