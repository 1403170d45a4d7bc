#!/bin/sh
# Started as root, the broker drops to the user mosquitto, which must be able to write what is mounted.
set -e
if [ "$(id -u)" = 0 ] && [ -d /mosquitto ]; then
    chown -R mosquitto:mosquitto /mosquitto || true
fi
exec "$@"
