"""The scripts that keep members.

Beside its other keys a channel has ``<prefix>:{<channel>}:who``, a hash: how many holders have each member, which is an
identity as JSON; and for each holder ``<prefix>:{<channel>}:who:<holder>``, the set of those that it has.

The holders are in one slot:

* ``<prefix>:{here}:holders``, a sorted set: those that live, and until when; minus that, for one that is being let go.
* ``<prefix>:{here}:holder:<holder>``, a set: the channels that it may have members of.
* ``<prefix>:{here}:memory``: a name that another memory would not have.
"""

from __future__ import annotations

from ...listening.members import CLAIM_SECONDS, GONE_AT_ONCE
from . import NOW, Script
from .channels import EPOCH_MS, READ

#: Lets a holder live for longer, or a new one begin; with ``is_away`` all others, too. Returns the name of the memory,
#: whether the holder lived still, and those that are to be let go, as nobody else does that now.
RENEW = Script(f"""
local all, memory = KEYS[1], KEYS[2]
local holder, new, ms, is_away, new_memory = unpack(ARGV)
{NOW}
local name = redis.call('GET', memory)
if not name then
  name = new_memory
  redis.call('SET', memory, name)
end
redis.call('PEXPIRE', memory, {EPOCH_MS})
local until_ms = string.format('%.0f', now + ms)
if is_away == '1' then
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', all, 0, until_ms)) do redis.call('ZADD', all, until_ms, other) end
end
local score = holder ~= '' and tonumber(redis.call('ZSCORE', all, holder) or 0) or 0
local lives = score > tonumber(now)
redis.call('ZADD', all, until_ms, lives and holder or name .. '.' .. new)
redis.call('PEXPIRE', all, {EPOCH_MS})
local dead = {{}}
if holder ~= '' then
  local found = redis.call('ZRANGEBYSCORE', all, '-inf', now, 'WITHSCORES')
  for index = 1, #found, 2 do
    if tonumber(found[index + 1]) > 0 or -found[index + 1] <= tonumber(now) then
      redis.call('ZADD', all, string.format('%.0f', -now - {CLAIM_SECONDS * 1000:.0f}), found[index])
      table.insert(dead, found[index])
    end
  end
end
return {{name, lives and 1 or 0, dead}}
""")

#: Notes that a holder may have members of these channels.
NOTE = Script(f"""
for index = 1, #ARGV do redis.call('SADD', KEYS[1], ARGV[index]) end
return redis.call('PEXPIRE', KEYS[1], {EPOCH_MS})
""")

#: Returns the channels that a holder may have members of.
CHANNELS_OF = Script("return redis.call('SMEMBERS', KEYS[1])")

#: Forgets a holder.
FORGET = Script("return redis.call('ZREM', KEYS[1], ARGV[1]) + redis.call('DEL', KEYS[2])")

#: Returns the holders that live.
LIVING = Script(f"{NOW} return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')")

#: Returns the members that these holders have, some perhaps more than once.
LIST = Script("""
local found = {}
for index = 1, #ARGV do
  for _, member in ipairs(redis.call('SMEMBERS', KEYS[1] .. ':' .. ARGV[index])) do table.insert(found, member) end
end
return found
""")

#: Notes who has come to a holder, and who is gone, and publishes what is new: nothing where it is quiet, or the channel
#: is complete. With ``is_all`` those that have come are all; returns whether there are more of the others.
TELL = Script(f"""
{READ}
local who, mine = KEYS[3], KEYS[4]
local events, ms, is_all, is_quiet, comes = unpack(ARGV, 7, 11)
local function publish(name, member)
  if is_quiet == '1' or complete then return end
  if is_other then change_epoch() end
  append('event: ' .. name .. '\\ndata: {{"identity": ' .. member .. '}}\\n\\n', '=' .. name, events, ms)
end
local function come(member)
  if redis.call('SADD', mine, member) == 1 and redis.call('HINCRBY', who, member, 1) == 1 then
    publish('join', member)
  end
end
local function go(member)
  if redis.call('SREM', mine, member) == 1 and redis.call('HINCRBY', who, member, -1) <= 0 then
    redis.call('HDEL', who, member)
    publish('leave', member)
  end
end
local kept, left = {{}}, {GONE_AT_ONCE}
for index = 12, 11 + comes do
  kept[ARGV[index]] = true
  come(ARGV[index])
end
for index = 12 + comes, #ARGV do go(ARGV[index]) end
if is_all == '1' then
  for _, member in ipairs(redis.call('SMEMBERS', mine)) do
    if not kept[member] then
      if left == 0 then return 1 end
      left = left - 1
      go(member)
    end
  end
end
redis.call('PEXPIRE', who, {EPOCH_MS})
redis.call('PEXPIRE', mine, {EPOCH_MS})
return 0
""")
