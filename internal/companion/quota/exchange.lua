-- One exchange: all of it is written, or nothing. What it was computed from must still be so.
-- KEYS: meta, seen, count, then the accounts. All have one hash tag.
-- ARGV: now (ms), count floor, lease (ms), memory (ms), stamp of meta, new meta or '',
--       proxies taken for alive, number of proxies in the batch, these, number of proxies taken for dead, these,
--       then for each account: stamp, new value or '', expiry (ms)
-- A value begins with its stamp, 16 characters.
-- Reply: what, now, count, meta, proxies that are alive with their times, then what differs: index and value of each account.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lease, memory = tonumber(ARGV[3]), tonumber(ARGV[4])
local count = tonumber(redis.call('GET', KEYS[3]) or 0)
local meta = redis.call('GET', KEYS[1]) or ''
local function reply(what, differs)
  local alive = redis.call('ZRANGEBYSCORE', KEYS[2], now - lease, '+inf', 'WITHSCORES')
  return {what, string.format('%.0f', now), string.format('%.0f', count), meta, alive, differs or {}}
end

if math.abs(now - tonumber(ARGV[1])) > 100 then return reply('clock') end
if string.sub(meta, 1, 16) ~= ARGV[5] then return reply('meta') end
if count < tonumber(ARGV[2]) and ARGV[6] == '' then return reply('lost') end

local at = 8
local proxies = {}
local alive = redis.call('ZCOUNT', KEYS[2], now - lease, '+inf')
for i = 1, tonumber(ARGV[at]) do
  proxies[i] = ARGV[at + i]
  local seen = redis.call('ZSCORE', KEYS[2], proxies[i])
  if not seen or tonumber(seen) < now - lease then alive = alive + 1 end
end
if alive ~= tonumber(ARGV[7]) then return reply('seen') end
at = at + #proxies + 1
local dead = tonumber(ARGV[at])
for i = 1, dead do
  local seen = redis.call('ZSCORE', KEYS[2], ARGV[at + i])
  if seen and tonumber(seen) >= now - lease then return reply('seen') end
end
at = at + dead + 1

local differs = {}
for i = 4, #KEYS do
  local stamp = ARGV[at + (i - 4) * 3]
  if redis.call('GETRANGE', KEYS[i], 0, 15) ~= stamp then
    differs[#differs + 1] = i - 4
    differs[#differs + 1] = redis.call('GET', KEYS[i]) or ''
  end
end
if #differs > 0 then return reply('differs', differs) end

for i = 4, #KEYS do
  local value, expiry = ARGV[at + (i - 4) * 3 + 1], ARGV[at + (i - 4) * 3 + 2]
  if value ~= '' then
    redis.call('SET', KEYS[i], value)
    redis.call('PEXPIREAT', KEYS[i], expiry)
  end
end
if ARGV[6] ~= '' then
  meta = ARGV[6]
  redis.call('SET', KEYS[1], meta)
end
if #proxies > 0 then
  for i = 1, #proxies do redis.call('ZADD', KEYS[2], now, proxies[i]) end
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - memory)
  redis.call('PEXPIRE', KEYS[2], memory)
end
count = math.max(count, tonumber(ARGV[2])) + 1
redis.call('SET', KEYS[3], string.format('%.0f', count))
return reply('done')
