"""What the server does in one piece, in Lua: storing a chunk's scores, giving out the next chunk, reading a hash.

A server stops everybody else while a script runs, so that no client meets half of what another has done.
"""

import re

# Time since the run's start and the newest version, 0 before the first; every script that writes records needs them.
# ARGV: start, the life that the client knows, p:cur, version. They are no KEYS, which a worker would need the right to
# write. A run that was set back to a checkpoint lives anew, and takes nothing from who has not noticed.
NOW = """
local text = redis.call('GET', ARGV[1])
if not text then return redis.error_reply('GONE') end
local whole, start = pcall(cjson.decode, text)
if not whole or type(start) ~= 'table' or type(start.seconds) ~= 'number' then
  return redis.error_reply('DAMAGED start')
end
if start.life ~= ARGV[2] then return redis.error_reply('GONE') end
local time = redis.call('TIME')
local now = tonumber(time[1]) - start.seconds + tonumber(time[2]) / 1e6
local newest, version = 0, tonumber(ARGV[4])
local pointer = redis.call('GET', ARGV[3])
if pointer then
  local sound, published = pcall(cjson.decode, pointer)
  newest = sound and type(published) == 'table' and published[1]
  if type(newest) ~= 'number' then return redis.error_reply('DAMAGED p:cur') end
end
"""

# KEYS: norms, previous_norms, losses, errors, versions, previous_versions, seconds, gradient_norms2,
# gradient_versions. ARGV: after those of NOW: chunk, first example, norms, losses, errors, ||g_B||^2 or ''.
PUSH = (
    NOW
    + """
local chunk, first = tonumber(ARGV[5]), tonumber(ARGV[6])
local stored = redis.call('GETRANGE', KEYS[5], 4 * chunk, 4 * chunk + 3)
if #stored < 4 then return redis.error_reply('GONE') end
if struct.unpack('<i4', stored) >= version or (newest > 0 and version > newest) then return 0 end
if struct.unpack('<i4', stored) > 0 then
  redis.call('SETRANGE', KEYS[2], 4 * first, redis.call('GETRANGE', KEYS[1], 4 * first, 4 * first + #ARGV[7] - 1))
  redis.call('SETRANGE', KEYS[6], 4 * chunk, stored)
end
redis.call('SETRANGE', KEYS[1], 4 * first, ARGV[7])
redis.call('SETRANGE', KEYS[3], 4 * first, ARGV[8])
redis.call('SETRANGE', KEYS[4], first, ARGV[9])
redis.call('SETRANGE', KEYS[5], 4 * chunk, struct.pack('<i4', version))
redis.call('SETRANGE', KEYS[7], 8 * chunk, struct.pack('<d', now))
if #ARGV[10] > 0 then
  redis.call('SETRANGE', KEYS[8], 8 * chunk, ARGV[10])
  redis.call('SETRANGE', KEYS[9], 4 * chunk, struct.pack('<i4', version))
end
return 1
"""
)

# KEYS: of each split, the wanted one first: versions, cursor, claims, seconds.
# ARGV: after those of NOW: lease in seconds, the longest lease. Returns {which split, chunk} or nothing.
# A claim or cursor that cannot be one counts as none: at worst a chunk is scored twice.
CLAIM = (
    NOW
    + """
local lease, longest = tonumber(ARGV[5]), tonumber(ARGV[6])
for split = 0, #KEYS / 4 - 1 do
  local key = 1 + 4 * split
  local versions = redis.call('GET', KEYS[key])
  if not versions then return redis.error_reply('GONE') end
  local chunks = math.floor(#versions / 4)
  local cursor = math.floor(tonumber(redis.call('GET', KEYS[key + 1]) or '0') or 0)
  if not (cursor >= 0 and cursor < chunks) then cursor = 0 end
  for step = 0, chunks - 1 do
    local chunk = (cursor + step) % chunks
    if struct.unpack('<i4', versions, 4 * chunk + 1) < version then
      local claim = redis.call('HGET', KEYS[key + 2], chunk)
      local claimed, till = 0, 0
      if claim and #claim == 12 then claimed, till = struct.unpack('<i4d', claim) end
      if claimed < version or not (till >= now and till <= now + longest) then
        redis.call('HSET', KEYS[key + 2], chunk, struct.pack('<i4d', version, now + lease))
        redis.call('SET', KEYS[key + 1], (chunk + 1) % chunks)
        return {split, chunk}
      end
    end
  end
end
if newest > 0 and newest == version then
  for split = 0, #KEYS / 4 - 1 do
    local versions = redis.call('GET', KEYS[1 + 4 * split])
    for chunk = 0, math.floor(#versions / 4) - 1 do
      if struct.unpack('<i4', versions, 4 * chunk + 1) == version then
        redis.call('SETRANGE', KEYS[4 + 4 * split], 8 * chunk, struct.pack('<d', now))
      end
    end
  end
end
return false
"""
)


# KEYS: a hash. ARGV: most entries, longest name, longest value. Returns names and values in turn; an entry that is too
# long for any of ours is taken out, and returned with the beginning of its name and nothing.
ENTRIES = """
local found = {}
for index, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if index > tonumber(ARGV[1]) then break end
  if #name > tonumber(ARGV[2]) or redis.call('HSTRLEN', KEYS[1], name) > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], name)
    found[#found + 1], found[#found + 2] = string.sub(name, 1, tonumber(ARGV[2])), ''
  else
    found[#found + 1], found[#found + 2] = name, redis.call('HGET', KEYS[1], name)
  end
end
return found
"""

# KEYS: as of PUSH, of records of single examples. ARGV: after those of NOW: indices, norms, losses, errors, a string
# each. Returns how many were stored.
PUSH_EXAMPLES = (
    NOW
    + """
if newest > 0 and version > newest then return 0 end
local stored, packed, stamp = 0, struct.pack('<i4', version), struct.pack('<d', now)
for place = 0, #ARGV[5] / 4 - 1 do
  local first, last = 4 * place + 1, 4 * place + 4
  local index = struct.unpack('<i4', ARGV[5], first)
  local known = redis.call('GETRANGE', KEYS[5], 4 * index, 4 * index + 3)
  if #known < 4 then return redis.error_reply('GONE') end
  local before = struct.unpack('<i4', known)
  if before < version then
    if before > 0 then
      redis.call('SETRANGE', KEYS[2], 4 * index, redis.call('GETRANGE', KEYS[1], 4 * index, 4 * index + 3))
      redis.call('SETRANGE', KEYS[6], 4 * index, known)
    end
    redis.call('SETRANGE', KEYS[1], 4 * index, string.sub(ARGV[6], first, last))
    redis.call('SETRANGE', KEYS[3], 4 * index, string.sub(ARGV[7], first, last))
    redis.call('SETRANGE', KEYS[4], index, string.sub(ARGV[8], place + 1, place + 1))
    redis.call('SETRANGE', KEYS[5], 4 * index, packed)
    redis.call('SETRANGE', KEYS[7], 8 * index, stamp)
    stored = stored + 1
  end
end
return stored
"""
)

# KEYS: what waits (hash: peer -> JSON), the last count of each peer (hash), the last ticket. ARGV: after those of NOW:
# peer, count, what is told as a JSON list. Returns 1: it waits, or did before; 0: another one does; -1: of no version.
CONTRIBUTE = (
    NOW
    + """
if version < 1 or version > newest then return -1 end
local last = tonumber(redis.call('HGET', KEYS[2], ARGV[5]) or '0') or 0
local count = tonumber(ARGV[6])
if last == count then return 1 end
if redis.call('HGET', KEYS[1], ARGV[5]) then return 0 end
if last > count then return 1 end
local ticket = (tonumber(redis.call('GET', KEYS[3]) or '0') or 0) + 1
redis.call('SET', KEYS[3], string.format('%.0f', ticket))
redis.call('HSET', KEYS[2], ARGV[5], ARGV[6])
redis.call('HSET', KEYS[1], ARGV[5], '[' .. string.format('%.0f', ticket) .. ',' .. string.sub(ARGV[7], 2))
return 1
"""
)

# KEYS: what waits, the beginning of the pieces' keys. ARGV: peer, ticket or '', most pieces. Removes the one with this
# ticket alone, or whatever is there, and its pieces: of the peer's next one none is written before.
TAKE = """
local text = redis.call('HGET', KEYS[1], ARGV[1])
local told = '[' .. ARGV[2] .. ','
if text and (ARGV[2] == '' or string.sub(text, 1, #told) == told) then
  redis.call('HDEL', KEYS[1], ARGV[1])
  for piece = 0, tonumber(ARGV[3]) do
    if redis.call('UNLINK', KEYS[2] .. piece) == 0 then break end
  end
end
return 1
"""

ALL = (PUSH, CLAIM, ENTRIES, PUSH_EXAMPLES, CONTRIBUTE, TAKE)
CALLED = sorted(set(re.findall(r"redis\.call\('(\w+)'", "".join(ALL))))  # commands, of which a refusal names none
