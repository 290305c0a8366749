#!/bin/sh
# Puts tokens where they are read: tokens.sh INFLUXDB-FILE PROMETHEUS-FILE
#
# InfluxDB's comes from the variable INFLUXDB_TOKEN, for the controller alone. Prometheus' is one of ours, a viewer's;
# only its hash is kept, so a new one is made when the file or the hash is gone. Run in the controller's directory.
set -eu
umask 077
printf '%s\n' "${INFLUXDB_TOKEN:?}" >"$1"

known=$(iace token list --format json)
case $known in
  *'"name": "prometheus", "role": "viewer"'*'"standing": "valid"'*) ;;
  *) rm -f "$2" ;;
esac
if [ ! -s "$2" ]; then
  iace token revoke prometheus 2>/dev/null || true
  iace token create prometheus --role viewer >"$2.new"
  chmod 644 "$2.new" # Prometheus is another user; nobody else has this volume
  mv "$2.new" "$2"
fi
