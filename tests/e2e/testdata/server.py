"""An HTTP server that answers what X-Want asks for, "STATUS SIZE FRAMING", and writes a line of JSON for each request
to the file that it is told. Arguments: port, file."""

import http.server
import json
import socket
import sys
import time

port, file = int(sys.argv[1]), sys.argv[2]
log = open(file, "a", buffering=1)


def plain(address):
    return address.removeprefix("::ffff:")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a head and its body leave together

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        received = 0
        while size := int(self.rfile.readline().split(b";")[0], 16):
            received += len(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return received

    def answer(self):
        seen = time.time()
        self.wfile.flush()  # 100 Continue
        received = self.body()
        status, size, framing = self.headers.get("X-Want", "200 0 length").split()
        status, size = int(status), int(size)
        bodiless = self.command == "HEAD" or status in (204, 304)
        chunked = framing == "chunked" and self.request_version == "HTTP/1.1" and not bodiless
        self.send_response(status)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif framing == "length" and status != 204:
            self.send_header("Content-Length", str(size))
        self.end_headers()
        if chunked:
            for part in (size // 2, size - size // 2):
                self.wfile.write(b"%x\r\n%s\r\n" % (part, b"p" * part))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        elif not bodiless:
            self.wfile.write(b"p" * size)
        self.wfile.flush()
        local, peer = self.connection.getsockname(), self.connection.getpeername()
        log.write(json.dumps({
            "id": self.headers["User-Agent"], "method": self.command, "target": self.path, "host": self.headers["Host"],
            "version": self.request_version, "status": status, "received": received, "sent": 0 if bodiless else size,
            "begun": seen * 1000, "local": plain(local[0]), "local_port": local[1], "peer": plain(peer[0]), "peer_port": peer[1],
        }) + "\n")

    def log_message(self, *_):
        pass


for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"):
    setattr(Handler, "do_" + method, Handler.answer)


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


Server(("::", port), Handler).serve_forever()
