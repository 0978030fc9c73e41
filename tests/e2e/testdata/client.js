// An HTTP client with an agent that keeps connections alive. The first argument is a plan in JSON; for each request it
// writes a line of JSON. It ends when its standard input does.
const http = require('http');

// The wall clock, finer than Date's milliseconds. What it was at the start drifts away from what it is, as clocks are set.
function now() {
  const begun = Date.now();
  return Math.min(Math.max(performance.timeOrigin + performance.now(), begun), begun + 1);
}

function ask(agent, connection, request) {
  return new Promise((resolve, reject) => {
    const line = { id: request.id, method: request.method, target: request.target, begun: now() };
    const headers = { 'User-Agent': request.id, Host: connection.host, ...request.headers };
    const body = Buffer.alloc(request.body || 0, 'j');
    if (request.expect) headers.Expect = '100-continue';
    if (request.chunked) headers['Transfer-Encoding'] = 'chunked';
    else if (request.body) headers['Content-Length'] = body.length;
    const message = http.request({
      agent, host: connection.address, port: connection.port, method: request.method, path: request.target, headers,
    }, (response) => {
      line.received = 0;
      line.status = response.statusCode;
      line.local = response.socket.localAddress;
      line.local_port = response.socket.localPort;
      line.peer = response.socket.remoteAddress;
      line.peer_port = response.socket.remotePort;
      response.on('data', (part) => { line.received += part.length; });
      response.on('end', () => {
        line.ended = now();
        line.sent = body.length;
        process.stdout.write(JSON.stringify(line) + '\n');
        resolve();
      });
    });
    message.on('error', reject);
    if (request.expect) {
      message.flushHeaders();
      message.on('continue', () => message.end(body));
    } else if (request.chunked) {
      message.write(body.subarray(0, body.length / 2));
      message.end(body.subarray(body.length / 2));
    } else {
      message.end(body);
    }
  });
}

process.stdin.resume();
(async () => {
  for (const connection of JSON.parse(process.argv[2])) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (const request of connection.requests) {
      await ask(agent, connection, request);
      await new Promise(setImmediate); // the agent takes the socket back
    }
    agent.destroy();
  }
})().catch((error) => { console.error(error); process.exit(1); });
