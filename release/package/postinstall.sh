#!/bin/sh
# Creates the user and the directories. Enables no unit.
set -e
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers trivy-ferry.conf
elif ! getent passwd trivy-ferry >/dev/null; then
    # A system without systemd, such as a container.
    useradd --system --user-group --home-dir /var/lib/trivy-ferry --shell /usr/sbin/nologin trivy-ferry
fi
if command -v systemd-tmpfiles >/dev/null; then
    systemd-tmpfiles --create trivy-ferry.conf
fi
mkdir -p /etc/trivy-ferry/trusted
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    # Restarts the service that runs the old program. `export` and `import` run to their end.
    systemctl try-restart trivy-ferry-watch.service || true
fi
