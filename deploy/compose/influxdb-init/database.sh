#!/bin/bash
# Run once by InfluxDB's image after it has made the bucket: gives the bucket the name under which InfluxQL knows it.
set -euo pipefail
influx v1 dbrp create --org "$DOCKER_INFLUXDB_INIT_ORG" --bucket-id "$DOCKER_INFLUXDB_INIT_BUCKET_ID" \
  --db iace --rp autogen --default
