#!/bin/sh
# Submits a job with nothing but kcat: a CloudEvent in binary mode, attributes as ce_ headers, data as the value.
#
#   examples/clients/kcat.sh 127.0.0.1:9092 "$PWD/samples"
#
# The paths are those that the ingest service sees. Source and id name the job: the same pair again is the same job.
set -eu

broker=${1:?usage: kcat.sh HOST:PORT PATH [TENANT]}
path=$(printf %s "${2:?usage: kcat.sh HOST:PORT PATH [TENANT]}" | sed 's/["\\]/\\&/g')
tenant=${3:-default}
id=kcat-$(date -u +%Y%m%dT%H%M%SZ)-$$

printf '{"tenant_id":"%s","source":"files","selection":{"paths":["%s"]}}\n' "$tenant" "$path" |
    kcat -P -b "$broker" -t medkg.jobs.v1 -k "$id" \
        -H ce_specversion=1.0 \
        -H "ce_id=$id" \
        -H ce_source=examples/clients/kcat \
        -H ce_type=org.medicalkg.job.submitted \
        -H content-type=application/json

echo "submitted $id to $broker"
