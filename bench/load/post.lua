-- Post the lines of a file in turn; print one line of JSON when done.
--
--   wrk -t1 -c32 -d60 -s post.lua URL -- BODIES SECONDS CONNECTIONS
--
-- After SECONDS no request is sent any more, and wrk ends when the last one is answered. So CPU
-- time is divided by the requests that caused it: cut off at the end of its time, wrk would leave
-- up to CONNECTIONS requests computed but not counted, a tenth of a round of a slow model.

local ffi = require("ffi")
ffi.cdef [[
typedef struct { long s; long ns; } moment;
int clock_gettime(int clock, moment *now);
int getpid(void);
int kill(int pid, int number);
]]
local CLOCK_MONOTONIC, SIGINT = 1, 2
local LONG_MS = 3600 * 1000
local moment = ffi.new("moment")

local function now_s()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, moment)
  return tonumber(moment.s) + tonumber(moment.ns) / 1e9
end

local posts, turn = {}, 0
local deadline_s, connections
-- Global: done() reads these from the thread.
started_s, ended_s, n_idle = 0, 0, 0

local thread

function setup(its_thread)
  thread = its_thread
end

function init(args)
  for body in io.lines(args[1]) do
    posts[#posts + 1] = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, body)
  end
  connections = tonumber(args[3])
  started_s = now_s()
  deadline_s = started_s + tonumber(args[2])
end

function request()
  turn = turn % #posts + 1
  return posts[turn]
end

-- wrk asks before each request how many milliseconds to wait.
function delay()
  local now = now_s()
  if now < deadline_s then
    return 0
  end
  ended_s = now
  n_idle = n_idle + 1
  if n_idle == connections then
    ffi.C.kill(ffi.C.getpid(), SIGINT) -- ends wrk's sleep; done() is called as ever
  end
  return LONG_MS
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "elapsed_s": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "idle": %d, "errors": %d}',
    summary.requests, thread:get("ended_s") - thread:get("started_s"),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    thread:get("n_idle"), errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
