#!/usr/bin/env bash
# A model server whose metrics come from several processes does not report when it started, and keeps reporting the gauges of dead workers.
#
# Expected: every Python server that uses prometheus_client exposes process_start_time_seconds, so a scraper can see a restart;
# and the gauge of a worker that has exited goes away.
# Seen (prometheus-client 0.26.0 in multiprocess mode, the one for servers with several worker processes):
# process_start_time_seconds and every Info metric are silently missing, a gauge appears once per pid, and the "livesum" of
# gauges still counts workers that have exited, until somebody calls mark_process_dead.
# Why it matters to a gateway: it must detect a restart (and the empty KV cache that comes with it) by something else, such as counters that
# decrease. "requests running" can stay above zero forever after a worker has crashed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check prometheus-client==0.26.0
mkdir "$dir/metrics"
cat >"$dir/worker.py" <<'PY'
import sys
from prometheus_client import CollectorRegistry, Counter, Gauge, Info, generate_latest, multiprocess
Gauge("kv_usage", "one series per worker").set(float(sys.argv[1]))
Gauge("running", "requests", multiprocess_mode="livesum").set(float(sys.argv[2]))
Counter("tokens", "tokens").inc(3)
Info("build", "version").info({"version": "1"})
if len(sys.argv) > 3:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    sys.stdout.write(generate_latest(registry).decode())
PY
export PROMETHEUS_MULTIPROC_DIR=$dir/metrics
"$dir/venv/bin/python" "$dir/worker.py" 0.9 5 # exits at once
"$dir/venv/bin/python" "$dir/worker.py" 0.1 1 show | tee "$dir/seen"
cd "$dir"
! grep -q '^process_start_time_seconds' seen
! grep -q '^build_info' seen
grep -qx 'tokens_total 6.0' seen
grep -qx 'running 6.0' seen
test "$(grep -c '^kv_usage{pid=' seen)" = 2
