#!/usr/bin/env bash

# Make a key; it works at once, also in a server that runs.
inferno security api-key create --user USER_ID --name "My API Key"
