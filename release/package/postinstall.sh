#!/bin/sh
# Creates the user and the directories. Enables no unit.
set -e
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers trivy-ferry.conf
    systemd-tmpfiles --create trivy-ferry.conf
else
    # A system without systemd, such as a container.
    getent passwd trivy-ferry >/dev/null ||
        useradd --system --user-group --home-dir /var/lib/trivy-ferry --shell /usr/sbin/nologin trivy-ferry
    mkdir -p /etc/trivy-ferry/trusted
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # Restarts the service that runs the old program. `export` and `import` run to their end.
    systemctl try-restart trivy-ferry-watch.service
fi
