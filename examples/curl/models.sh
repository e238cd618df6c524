#!/usr/bin/env bash

API_KEY=${API_KEY:-your_api_key}

# List models
curl -H "Authorization: Bearer $API_KEY" \
  http://localhost:8080/models
