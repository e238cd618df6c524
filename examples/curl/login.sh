#!/usr/bin/env bash

# Log in; needs: inferno security user create user --password pass --role user
curl -X POST http://localhost:8080/auth/login \
  -H "Content-Type: application/json" \
  -d '{"username": "user", "password": "pass"}'
