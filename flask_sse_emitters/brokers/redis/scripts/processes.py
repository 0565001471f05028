"""The scripts that concern what processes report, and Redis as a whole."""

from __future__ import annotations

from . import NOW, Script

#: Sets the clients of one process: all of them, or what has changed. Returns 0 where Redis knew of none before.
COUNT = Script(f"""
local all, mine = KEYS[1], KEYS[2]
local process, ms = ARGV[1], ARGV[2]
local known = redis.call('EXISTS', mine)
if ARGV[3] == '1' then redis.call('DEL', mine) end
for index = 4, #ARGV, 2 do
  if ARGV[index + 1] == '0' then
    redis.call('HDEL', mine, ARGV[index])
  else
    redis.call('HSET', mine, ARGV[index], ARGV[index + 1])
  end
end
{NOW}
redis.call('ZREMRANGEBYSCORE', all, '-inf', now)
if redis.call('EXISTS', mine) == 1 then
  redis.call('PEXPIRE', mine, ms)
  redis.call('ZADD', all, string.format('%.0f', now + ms), process)
  redis.call('PEXPIRE', all, ms)
else
  redis.call('ZREM', all, process)
end
return known
""")

#: Returns the version of what lies in Redis, which is at least that of this process from now on, unless Redis is full
#: or a replica. It is kept for a year after the last process has asked.
CHECK_FORMAT = Script("""
local found = redis.pcall('GET', KEYS[1])
found = type(found) == 'string' and tonumber(found) or 0
local newest = math.max(found, tonumber(ARGV[1]))
redis.pcall('SET', KEYS[1], string.format('%.0f', newest), 'PX', 31536000000)
return newest
""")

#: Writes something that is gone at once: a server that is full, or a replica, refuses it.
TRY_WRITE = Script("return redis.call('SET', KEYS[1], '', 'PX', 1)")

#: Returns how many clients of a channel all other processes have.
SUM = Script(f"""
{NOW}
local sum = 0
for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')) do
  if process ~= ARGV[1] then
    sum = sum + (redis.call('HGET', ARGV[2] .. process, ARGV[3]) or 0)
  end
end
return sum
""")

#: Returns what all processes but this one have reported.
PROCESSES = Script(f"""
{NOW}
local found = {{}}
local living = redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'WITHSCORES')
for index = 1, #living, 2 do
  if living[index] ~= ARGV[1] then
    local left = living[index + 1] - now
    table.insert(found, {{living[index], string.format('%.0f', left), redis.call('HGETALL', ARGV[2] .. living[index])}})
  end
end
return found
""")
