// An HTTP/2 client. The first argument is a plan in JSON; for each request it writes a line of JSON. It ends when its
// standard input does.
const http2 = require('http2');

const now = () => performance.timeOrigin + performance.now();
const end = (address, port) => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`);

function ask(session, connection, request) {
  return new Promise((resolve, reject) => {
    const agent = `client.js/${process.versions.node.split('.')[0]}`;
    const body = Buffer.alloc(request.body || 0, 'j');
    const line = {
      method: request.method, target: request.target, authority: connection.authority, agent, received: 0, sent: body.length,
      request_id: request.headers && request.headers['x-request-id'], begun: now(), version: 'HTTP/2.0',
      local: end(session.socket.localAddress, session.socket.localPort),
      peer: end(session.socket.remoteAddress, session.socket.remotePort),
    };
    const stream = session.request({
      ':method': request.method, ':path': request.target, ':authority': connection.authority, 'user-agent': agent, ...request.headers,
    }, { endStream: body.length === 0 });
    stream.on('response', (headers) => { line.status = headers[':status']; });
    stream.on('data', (part) => { line.received += part.length; });
    stream.on('error', reject);
    stream.on('end', () => {
      line.ended = now();
      process.stdout.write(JSON.stringify(line) + '\n');
      resolve();
    });
    if (body.length > 0) stream.end(body);
  });
}

process.stdin.resume();
(async () => {
  for (const connection of JSON.parse(process.argv[2])) {
    const session = http2.connect('http://' + connection.address);
    await new Promise((resolve, reject) => { session.on('remoteSettings', resolve); session.on('error', reject); });
    const todo = [...connection.requests];
    const worker = async () => {
      while (todo.length > 0) await ask(session, connection, todo.shift());
    };
    await Promise.all(Array.from({ length: connection.streams }, worker));
    session.close();
  }
})().catch((error) => { console.error(error); process.exit(1); });
