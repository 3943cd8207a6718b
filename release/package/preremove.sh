#!/bin/sh
# Stops and disables the units when the package is removed, not when it is upgraded.
set -e
case $1 in
    remove | 0) ;;
    *) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
    for unit in trivy-ferry-watch.service trivy-ferry-export.timer trivy-ferry-export.service \
        trivy-ferry-inbox.path trivy-ferry-inbox.timer trivy-ferry-inbox.service; do
        systemctl --no-reload disable --now "$unit" >/dev/null 2>&1 || true
    done
fi
