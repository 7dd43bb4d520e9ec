#!/usr/bin/env bash
# The fixed window of Python's limits (the library under slowapi and Flask-Limiter) charges for what it refuses.
#
# Expected: hit(limit, tenant, cost=500) with 100 left is refused, and the 100 stay for smaller requests, whatever the strategy.
# Seen (limits 5.8.0): moving window and sliding window counter do so. The fixed window adds the cost first and compares after that: the
# refused request takes what is left, and a request of 50 is refused until the window ends.
# Why it matters to a gateway: with tokens as the cost, one prompt that is too long locks a tenant out, and a change of strategy changes who is served.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check limits==5.8.0
cat >"$dir/spend.py" <<'PY'
import sys
from importlib.metadata import version

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

print("limits", version("limits"))
budget = parse("3000 per year")
got = []
for strategy in (FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter):
    limiter = strategy(MemoryStorage())
    hits = [limiter.hit(budget, "tenant", cost=cost) for cost in (2900, 500, 50)]
    left = limiter.get_window_stats(budget, "tenant").remaining
    print(f"{strategy.__name__}: 2900, 500 and 50 of 3000: {hits}, {left} left")
    got.append((hits, left))
kept = ([True, False, True], 50)
sys.exit(0 if got == [([True, False, False], 0), kept, kept] else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/spend.py"
