-- wrk's script: each thread, which has one connection, sends so many requests that ask for three statuses in turn,
-- says that it is done and stops. wrk itself goes on until it is interrupted; then it says what came of all.
local limit, sent, got
local statuses = { 200, 404, 503 }
local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    limit, sent, got = tonumber(args[1]), 0, 0
    counts = ""
    seen = { [200] = 0, [404] = 0, [503] = 0 }
end

function request()
    sent = sent + 1
    local status = statuses[sent % 3 + 1]
    return wrk.format("GET", "/" .. status, { ["User-Agent"] = "wrk", ["X-Want"] = status .. " 64 length" })
end

function response(status)
    got = got + 1
    seen[status] = seen[status] + 1
    counts = seen[200] .. " " .. seen[404] .. " " .. seen[503]
    if got == limit then
        io.write("a thread is done\n")
        io.flush()
        wrk.thread:stop()
    end
end

function done(summary)
    local all = { 0, 0, 0 }
    for _, thread in ipairs(threads) do
        local i = 0
        for n in string.gmatch(thread:get("counts"), "%d+") do
            i = i + 1
            all[i] = all[i] + tonumber(n)
        end
    end
    local errors = summary.errors
    io.write(string.format("told %d %d %d %d %d\n", summary.requests, all[1], all[2], all[3],
        errors.connect + errors.read + errors.write + errors.timeout))
end
