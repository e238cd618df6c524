#!/usr/bin/env bash

# Health check
curl http://localhost:8080/health
