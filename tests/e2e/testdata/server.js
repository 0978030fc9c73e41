// An HTTP server that answers what X-Want asks for, "STATUS SIZE FRAMING", and writes a line of JSON for each request
// to the file that it is told. Arguments: port, file.
const fs = require('fs');
const http = require('http');

const [port, file] = process.argv.slice(2);

// The wall clock, finer than Date's milliseconds. What it was at the start drifts away from what it is, as clocks are set.
function now() {
  const begun = Date.now();
  return Math.min(Math.max(performance.timeOrigin + performance.now(), begun), begun + 1);
}

function address(host) {
  return host.startsWith('::ffff:') ? host.slice(7) : host;
}

const server = http.createServer((request, response) => {
  const seen = now();
  let received = 0;
  request.on('data', (part) => { received += part.length; });
  request.on('end', () => {
    const [status, size, framing] = (request.headers['x-want'] || '200 0 length').split(' ');
    const bodiless = request.method === 'HEAD' || status === '204' || status === '304';
    if (status !== '204' && framing === 'length') response.setHeader('Content-Length', size);
    response.statusCode = Number(status);
    if (bodiless) response.end();
    else response.end(Buffer.alloc(Number(size), 'n'));
    fs.appendFileSync(file, JSON.stringify({
      id: request.headers['user-agent'], method: request.method, target: request.url, host: request.headers.host,
      version: 'HTTP/' + request.httpVersion, status: Number(status), received, sent: bodiless ? 0 : Number(size),
      begun: seen, local: address(request.socket.localAddress), local_port: request.socket.localPort,
      peer: address(request.socket.remoteAddress), peer_port: request.socket.remotePort,
    }) + '\n');
  });
});
server.keepAliveTimeout = 60000;
server.listen(Number(port), '::');
