// An HTTP/2 server: a port, and the file that it logs to. "x-want: status size" says what to answer, and with "trailers"
// behind it how; "/told/STATUS" in the path is a status too.
const fs = require('fs');
const http2 = require('http2');

const log = fs.openSync(process.argv[3], 'a', 0o600);
const now = () => performance.timeOrigin + performance.now();
const end = (address, port) => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`);

const server = http2.createServer();
server.on('stream', (stream, headers) => {
  const begun = now();
  const { socket } = stream.session;
  const method = headers[':method'];
  let received = 0;
  stream.on('error', (error) => console.error(error));
  stream.on('data', (part) => { received += part.length; });
  stream.on('end', () => {
    const told = /^\/told\/(\d{3})/.exec(headers[':path']) || ['', '200'];
    const [status, size, how] = (headers['x-want'] || `${told[1]} 5`).split(' ');
    const body = Buffer.alloc(Number(size), 's');
    const empty = method === 'HEAD' || status === '204' || body.length === 0;
    stream.respond({ ':status': Number(status), 'content-type': 'text/plain' }, { endStream: empty, waitForTrailers: how === 'trailers' });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '0123456789' }));
    if (!empty) stream.end(body);
    fs.writeSync(log, JSON.stringify({
      method, target: headers[':path'], authority: headers[':authority'], agent: headers['user-agent'], version: 'HTTP/2.0',
      request_id: headers['x-request-id'], status: Number(status), sent: empty ? 0 : body.length, received, begun,
      local: end(socket.localAddress, socket.localPort), peer: end(socket.remoteAddress, socket.remotePort),
    }) + '\n');
  });
});
server.listen(Number(process.argv[2]), '::');
