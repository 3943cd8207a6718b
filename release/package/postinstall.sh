#!/bin/sh
# Creates the user and the directories. Enables no unit.
set -e

has_user() {
    getent passwd trivy-ferry >/dev/null
}

# A container has neither of these programs, or only one.
if ! has_user && command -v systemd-sysusers >/dev/null; then
    systemd-sysusers trivy-ferry.conf || true
fi
if ! has_user && command -v useradd >/dev/null; then
    useradd --system --user-group --home-dir /var/lib/trivy-ferry --shell /usr/sbin/nologin trivy-ferry || true
fi
has_user || echo "trivy-ferry: the user trivy-ferry could not be created. The units need it." >&2

if command -v systemd-tmpfiles >/dev/null; then
    systemd-tmpfiles --create trivy-ferry.conf || true
fi
for directory in /etc/trivy-ferry /etc/trivy-ferry/trusted; do
    [ -d "$directory" ] || install -d -m 0755 "$directory"
done

if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    # Restarts the service that runs the old program. `export` and `import` run to their end.
    systemctl try-restart trivy-ferry-watch.service || true
fi
