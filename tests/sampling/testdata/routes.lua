-- wrk's script: each thread, which has one connection, sends so many requests for 250 routes in turn, 50 templates by 5
-- methods, says that it is done and stops. wrk itself goes on until it is interrupted; then it says what came of all.
local limit, zone, sent, got
local methods = { "GET", "POST", "PUT", "PATCH", "DELETE" }

function init(args)
    limit, zone, sent, got = tonumber(args[1]), args[2], 0, 0
end

function request()
    local route = sent % 250
    sent = sent + 1
    return wrk.format(methods[route % 5 + 1], string.format("/%s/w%d/%d", zone, math.floor(route / 5), sent))
end

function response()
    got = got + 1
    if got == limit then
        io.write("a thread is done\n")
        io.flush()
        wrk.thread:stop()
    end
end

function done(summary)
    local errors = summary.errors
    io.write(string.format("told %d %d\n", summary.requests, errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
