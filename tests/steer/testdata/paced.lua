-- Each connection sends a request each DELAY milliseconds, one a little later than another, on routes by Zipf's law.
local delay_ms, routes, total = 10, 20, 0
local weights = {}

function init(args)
	delay_ms = tonumber(args[1])
	math.randomseed(tonumber(args[2]))
	for i = 1, routes do
		total = total + 1 / i
		weights[i] = total
	end
end

function delay()
	return delay_ms * (0.5 + math.random())
end

function request()
	local at = math.random() * total
	for i = 1, routes do
		if at <= weights[i] then
			return wrk.format("GET", "/route-" .. i)
		end
	end
	return wrk.format("GET", "/route-1")
end
