#!/bin/sh
# Keeps the user, the trusted keys, and the state with the record of all imports. `docs/install.md` lists them.
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
